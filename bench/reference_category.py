"""The reference model of categories: attention over the tokens of a query and of a description.

Token embeddings 10,000 × 128 of both, 128 tokens each, dot-product attention with softmax, means of the query and of
what it attends to, softmax over the categories; Adam, categorical cross-entropy, 5 epochs of batches of 16. It is the
example in the documentation of Keras's layer `Attention`, with padding masked.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.text import lexical_terms

VOCABULARY = 10_000
DIMENSION = 128
TOKENS = 128
EPOCHS = 5
BATCH = 16
PADDING, UNKNOWN = 0, 1

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """Pairs of a query and a description, with the category: labels are int64 (m,)."""

    queries: Sequence[str]
    descriptions: Sequence[str]
    labels: Ints


@dataclass(frozen=True)
class Outcome:
    """Test figures of the last epoch, and the seconds that training took."""

    accuracy: float
    log_loss: float
    seconds: float


def train_reference(train: Texts, test: Texts, n_categories: int, seed: int, name: str) -> Outcome:
    """Train the model, printing its test loss after each epoch."""
    import torch
    from torch import nn

    torch.manual_seed(seed)

    class Reference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Embedding(VOCABULARY, DIMENSION, padding_idx=PADDING)
            self.description = nn.Embedding(VOCABULARY, DIMENSION, padding_idx=PADDING)
            self.output = nn.Linear(2 * DIMENSION, n_categories)

        def forward(self, query: torch.Tensor, description: torch.Tensor) -> torch.Tensor:
            asked, said = self.query(query), self.description(description)
            scores = (asked @ said.transpose(1, 2)).masked_fill((description == PADDING)[:, None, :], -1e9)
            attended = torch.softmax(scores, dim=2) @ said
            present = (query != PADDING).float()[:, :, None]
            length = present.sum(dim=1).clamp(min=1)
            means = [(part * present).sum(dim=1) / length for part in (asked, attended)]
            return self.output(torch.cat(means, dim=1))

    words = [Vocabulary(train.queries), Vocabulary(train.descriptions)]
    tensors = [
        [torch.from_numpy(words[0](part.queries)), torch.from_numpy(words[1](part.descriptions))]
        for part in (train, test)
    ]
    labels = [torch.from_numpy(part.labels) for part in (train, test)]
    model, loss = Reference(), nn.CrossEntropyLoss()
    adam = torch.optim.Adam(model.parameters())
    seconds, accuracy, log_loss = 0.0, 0.0, 0.0
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        for rows in torch.randperm(len(labels[0])).split(BATCH):
            adam.zero_grad()
            loss(model(*(tensor[rows] for tensor in tensors[0])), labels[0][rows]).backward()
            adam.step()
        seconds += time.perf_counter() - start
        with torch.no_grad():
            places = torch.arange(len(labels[1])).split(256)
            logits = torch.cat([model(*(tensor[rows] for tensor in tensors[1])) for rows in places])
            log_loss = float(loss(logits, labels[1]))
            accuracy = float((logits.argmax(dim=1) == labels[1]).float().mean())
        print(f"reference, {name}: epoch {epoch + 1}, test loss {log_loss:.4f}, accuracy {accuracy:.4f}", flush=True)
    return Outcome(accuracy, log_loss, seconds)


class Vocabulary:
    """The most frequent terms of the training texts, numbered."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = Counter(term for text in texts for term in lexical_terms(text))
        self.number = {term: place + 2 for place, (term, _) in enumerate(counts.most_common(VOCABULARY - 2))}

    def __call__(self, texts: Sequence[str]) -> Ints:
        """Return the numbers of the first 128 terms of each text, int64 (m, 128), padded with 0."""
        numbers = np.full((len(texts), TOKENS), PADDING, dtype=np.int64)
        for row, text in zip(numbers, texts, strict=True):
            found = [self.number.get(term, UNKNOWN) for term in lexical_terms(text)[:TOKENS]]
            row[: len(found)] = found
        return numbers
