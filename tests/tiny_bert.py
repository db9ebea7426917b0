"""An encoder that is small enough for any test."""

from __future__ import annotations

import json
from pathlib import Path


def write_tiny_bert(folder: Path, seed: int = 0) -> Path:
    """A BERT of random weights with a tokenizer of twelve words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=12, max_position_embeddings=32, **size)).save_pretrained(folder)
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *("query", "passage", ":", "dog", "cat", "cup", "big", "small")]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
