"""Exact byte-level BPE for language models: training and encoding.

>>> tokenizer = rustbpe.train(texts, 65_527).with_special_tokens(["<|bos|>"])
>>> tokenizer.decode(tokenizer.encode("hello"))
'hello'
"""

from rustbpe._rustbpe import CL100K_PATTERN, SPLIT_PATTERN, StreamDecoder, split
from rustbpe._tokenizer import Tokenizer
from rustbpe._train import train, train_parquet

__all__ = [
    "CL100K_PATTERN",
    "SPLIT_PATTERN",
    "StreamDecoder",
    "Tokenizer",
    "split",
    "train",
    "train_parquet",
]
