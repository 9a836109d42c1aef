"""The engine compared with the plain model, and its tool loop with a model that follows a script."""

import pytest
import torch
from torch import nn

from nanochat.engine import Engine, PromptTooLong
from nanochat.engine.cache import KVCache
from nanochat.model import GPTConfig

pytestmark = pytest.mark.usefixtures("one_core")
PROMPT = [3, 14, 15, 92, 65, 35]


def naive(model, prompt, steps):
    """Greedy decoding without a cache: the whole sequence goes through the model for every token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


# -- the cache --


def test_chunks_through_the_cache_give_the_whole_models_logits(make_model):
    model = make_model()
    ids = torch.randint(400, (3, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(ids)
        cache = KVCache(model.config.n_layer, 24)
        parts = [model(chunk, cache=cache) for chunk in ids.split([5, 1, 7, 1, 10], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)
    assert cache.pos == 24


def test_selected_rows_go_on_as_if_alone(make_model):
    model = make_model()
    ids = torch.randint(400, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cache = KVCache(model.config.n_layer, 12)
        model(ids[:, :8], cache=cache)
        rest = model(ids[[2, 0, 2], 8:], cache=cache.select(torch.tensor([2, 0, 2])))
        whole = model(ids)
    torch.testing.assert_close(rest, whole[[2, 0, 2], 8:], atol=1e-4, rtol=1e-4)


def test_a_full_cache_refuses_more(make_model):
    model = make_model()
    cache = KVCache(model.config.n_layer, 4)
    with torch.no_grad(), pytest.raises(ValueError, match="do not fit"):
        model(torch.tensor([[1, 2, 3, 4, 5]]), cache=cache)


# -- generation --


@pytest.mark.parametrize("seed", range(3))
def test_greedy_is_the_same_cached_uncached_and_batched(make_model, tokenizer, seed):
    model = make_model(seed=seed)
    engine = Engine(model, tokenizer, dtype=torch.float32)
    expected = naive(model, PROMPT, 40)
    ends = [i for i, t in enumerate(expected) if t in (tokenizer.bos, tokenizer.special("<|assistant_end|>"))]
    expected = expected[: ends[0]] if ends else expected
    one, _ = engine.generate_batch(PROMPT, max_tokens=40, temperature=0)
    four, masks = engine.generate_batch(PROMPT, num_samples=4, max_tokens=40, temperature=0)
    assert one == [expected]
    assert four == [expected] * 4
    assert masks == [[1] * len(expected)] * 4


def test_samples_do_not_depend_on_their_batch_mates(make_model, tokenizer):
    engine = Engine(make_model(), tokenizer, dtype=torch.float32)
    alone, _ = engine.generate_batch(PROMPT, num_samples=1, max_tokens=30, seed=5)
    together, _ = engine.generate_batch(PROMPT, num_samples=6, max_tokens=30, seed=5)
    again, _ = engine.generate_batch(PROMPT, num_samples=6, max_tokens=30, seed=5)
    assert together[0] == alone[0]
    assert together == again
    assert engine.generate_batch(PROMPT, num_samples=6, max_tokens=30, seed=6)[0] != together


def test_each_row_samples_its_own_first_token(make_model, tokenizer):
    firsts = next(iter(Engine(make_model(), tokenizer).generate(PROMPT, num_samples=32, max_tokens=1, temperature=1.5)))[0]
    assert len(set(firsts)) > 3


def test_the_context_is_respected(make_model, tokenizer):
    model = make_model(seq_len=16)
    engine = Engine(model, tokenizer, dtype=torch.float32)
    columns = list(engine.generate([5] * 12, max_tokens=100, temperature=0))
    assert len(columns) <= 4
    assert len(list(engine.generate([5] * 15, max_tokens=100))) == 1
    with pytest.raises(PromptTooLong, match="16"):
        next(engine.generate([5] * 16, max_tokens=1))
    with pytest.raises(ValueError, match="empty"):
        next(engine.generate([], max_tokens=1))


def test_stop_ends_it(make_model, tokenizer):
    seen = []
    columns = Engine(make_model(), tokenizer).generate(PROMPT, max_tokens=50, seed=3, stop=lambda: len(seen) >= 2)
    seen.extend(column for column in columns)
    assert len(seen) == 2


def test_generation_leaves_gradients_as_they_were(make_model, tokenizer):
    model = make_model()
    columns = Engine(model, tokenizer).generate(PROMPT, max_tokens=5)
    next(columns)
    assert torch.is_grad_enabled()
    model(torch.tensor([PROMPT]), torch.tensor([PROMPT])).backward()
    assert next(columns)


# -- the tool loop, with a model that follows a script --


class Scripted(nn.Module):
    """A model that predicts the tokens of `scripts[row]` in turn, whatever its input is. It records its inputs."""

    def __init__(self, vocab_size, scripts):
        super().__init__()
        self.config = GPTConfig(256, vocab_size, 1, 1, 1, vocab_size)
        self.lm_head = nn.Identity()
        self.scripts, self.step, self.fed = scripts, 0, []

    def get_device(self):
        return torch.device("cpu")

    def hidden(self, ids, cache):
        if self.step == 0:
            cache.update(0, torch.zeros(1, 1, ids.size(1), 1), torch.zeros(1, 1, ids.size(1), 1))
        self.fed.append(ids[:, -1].tolist())
        says = [s[self.step] if self.step < len(s) else 0 for s in self.scripts[: ids.size(0)]]
        self.step += 1
        return nn.functional.one_hot(torch.tensor(says), self.config.vocab_size)[:, None].float() * 30


def spoken(tokenizer, text):
    """The ids of a text in which special tokens are written by name."""
    ids = []
    for piece in text.replace("<|", "\0<|").replace("|>", "|>\0").split("\0"):
        ids += [tokenizer.special(piece)] if piece.startswith("<|") else tokenizer.encode(piece)
    return ids


def run_script(tokenizer, *texts, **how):
    model = Scripted(tokenizer.vocab_size, [spoken(tokenizer, t) for t in texts])
    tokens, masks = Engine(model, tokenizer).generate_batch(
        [tokenizer.bos], num_samples=len(texts), max_tokens=how.get("max_tokens", 100), temperature=0
    )
    return model, tokens, masks


def test_a_tool_call_is_answered_with_forced_tokens(tokenizer):
    answer = spoken(tokenizer, "<|output_start|>24<|output_end|>")
    call = spoken(tokenizer, "So <|python_start|>48/2<|python_end|>")
    said = tokenizer.encode("xxxxxxxx")[:1] * len(answer)  # the answer replaces these tokens
    model = Scripted(tokenizer.vocab_size, [[*call, *said, *spoken(tokenizer, " done<|assistant_end|>never")]])
    tokens, masks = Engine(model, tokenizer).generate_batch([tokenizer.bos], max_tokens=100, temperature=0)
    assert tokens == [[*call, *answer, *tokenizer.encode(" done")]]
    assert masks == [[1] * len(call) + [0] * len(answer) + [1] * len(tokenizer.encode(" done"))]
    fed = [t for step in model.fed[1:] for t in step]
    assert fed == tokens[0]  # the model continues from the forced tokens


@pytest.mark.parametrize("call", ["rm -rf", "1/0", "2**9", ""])
def test_a_call_that_is_not_understood_gets_no_answer(tokenizer, call):
    _, tokens, masks = run_script(tokenizer, f"<|python_start|>{call}<|python_end|>ok<|assistant_end|>")
    assert tokens == [spoken(tokenizer, f"<|python_start|>{call}<|python_end|>ok")]
    assert masks == [[1] * len(tokens[0])]


def test_an_end_without_a_start_and_an_unfinished_call_are_harmless(tokenizer):
    _, tokens, _ = run_script(tokenizer, "<|python_end|>a<|python_start|>1+1<|assistant_end|>")
    assert tokens == [spoken(tokenizer, "<|python_end|>a<|python_start|>1+1")]


@pytest.mark.parametrize("end", ["<|assistant_end|>", "<|bos|>"])
def test_an_end_is_not_yielded_and_shows_as_minus_one(tokenizer, end):
    model = Scripted(tokenizer.vocab_size, [spoken(tokenizer, f"a{end}")])
    columns = list(Engine(model, tokenizer).generate([tokenizer.bos], max_tokens=100, temperature=0))
    assert columns == [([*tokenizer.encode("a")], [1]), ([-1], [0])]


def test_ending_by_length_shows_no_minus_one(tokenizer):
    model = Scripted(tokenizer.vocab_size, [spoken(tokenizer, "aaaaaaaaaaaaaaaaaaaa")])
    columns = list(Engine(model, tokenizer).generate([tokenizer.bos], max_tokens=2, temperature=0))
    assert [c[1] for c in columns] == [[1], [1]]


def test_rows_finish_at_different_times_and_the_others_go_on(make_model, tokenizer):
    """Finished rows leave the batch. The other rows continue with the same tokens as if each were alone."""
    model = make_model(tokenizer.vocab_size)
    with torch.no_grad():  # make ends likely, so that rows end at many different steps
        model.lm_head.weight[tokenizer.bos] *= 3
    engine = Engine(model, tokenizer, dtype=torch.float32)
    tokens, _ = engine.generate_batch(PROMPT, num_samples=12, max_tokens=40, seed=2, temperature=1.5)
    lengths = [len(t) for t in tokens]
    assert len(set(lengths)) > 3
    columns = list(engine.generate(PROMPT, num_samples=12, max_tokens=40, seed=2, temperature=1.5))
    for row, length in enumerate(lengths):
        said = [c[0][row] for c in columns]
        assert said[:length] == tokens[row]
        assert all(t == -1 for t in said[length:])
    for row in (0, 5, 11):  # the same row in a smaller batch
        assert engine.generate_batch(PROMPT, num_samples=row + 1, max_tokens=40, seed=2, temperature=1.5)[0][row] == tokens[row]
