"""Better descriptions of products, with proof."""
