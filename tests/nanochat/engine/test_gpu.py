"""The engine on a GPU: CUDA graphs and paged attention give what the plain model gives."""

import pytest
import regex
import torch

from nanochat.engine import Engine, Sampling
from nanochat.engine.scorer import Scorer
from nanochat.grammar import Grammar
from tests.nanochat.engine import shared_beginnings
from tests.nanochat.engine.switches import MODERN

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
GREEDY = Sampling(temperature=0)


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
@pytest.mark.parametrize(
    ("dtype", "cache", "tolerance"),
    [(torch.float32, None, 1e-3), (torch.bfloat16, None, 0.5), (torch.bfloat16, torch.float8_e4m3fn, 1.0)],
    ids=["fp32", "bf16", "fp8 cache"],
)
def test_greedy_follows_the_plain_model(make_model, tokenizer, switches, dtype, cache, tolerance):
    """Rows of many lengths, more than one graph's size, few blocks. Ties are judged by the plain model's logits."""
    model = make_model(depth=4, **switches).cuda()
    engine = Engine(model, tokenizer, dtype=dtype, cache_dtype=cache, max_rows=12, cache_tokens=400)
    engine.warm_up()
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(400, (n,), generator=generator).tolist() for n in (1, 2, 15, 16, 17, 30, 31, 32, 33, 40, 44, 7, 3)]
    requests = [engine.add(prompt, GREEDY, max_tokens=16, n=1 + i % 2) for i, prompt in enumerate(prompts)]
    for _ in engine.finished():
        pass
    assert engine.blocks.free == engine.blocks.count
    for request in requests:
        for row in request.rows:
            ids = list(request.prompt)
            for token in row.made:
                with torch.no_grad():
                    logits = model(torch.tensor([ids], device="cuda"))[0, -1]
                assert logits.max() - logits[token] <= tolerance
                ids.append(token)


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
def test_weights_in_8_bits_are_one_model_for_single_rows_batches_and_prompts(make_model, tokenizer, switches):
    """The plain model with the rounded matrices is the reference, also after the weights have changed."""
    model = make_model(depth=4, **switches).cuda()
    engine = Engine(model, tokenizer, dtype=torch.float32, int8=True, max_rows=8)
    before = model.lm_head.weight.clone()
    engine.warm_up()
    for _ in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.25)
        engine.refresh()
        for count in (1, 5):
            requests = [engine.add([5, 6, 7 + i], GREEDY, max_tokens=12) for i in range(count)]
            for _ in engine.finished():
                pass
            for request in requests:
                ids = list(request.prompt)
                for token in request.rows[0].made:
                    with torch.no_grad():
                        logits = engine.model(torch.tensor([ids], device="cuda"))[0, -1]
                    assert logits.max() - logits[token] <= 1e-3
                    ids.append(token)
    assert torch.equal(model.lm_head.weight, before * 1.25 * 1.25)
    assert not torch.equal(engine.model.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
def test_scores_of_a_prompt_are_those_of_the_plain_model(make_model, tokenizer, switches):
    model = make_model(depth=4, **switches).cuda()
    prompt = torch.randint(400, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        logs = model(torch.tensor([prompt], device="cuda"))[0].float().log_softmax(-1)
    scores = Engine(model, tokenizer, dtype=torch.float32, max_rows=2).score(prompt, top=1)
    expected = logs[:-1].gather(1, torch.tensor(prompt[1:], device="cuda")[:, None])[:, 0].tolist()
    assert [score.token for score in scores] == pytest.approx(expected, abs=1e-3)


def test_answers_keep_to_their_grammar_beside_free_ones(make_model, tokenizer):
    """The rows with a grammar are drawn outside the graph. Free rows and constrained ones start and end at different steps."""
    engine = Engine(make_model(depth=4, seq_len=256).cuda(), tokenizer, max_rows=16)
    pattern = "[a-c]{20,40}(, [0-9]{3}){2}"
    held = [
        engine.add([3, 14, 15 + i], Sampling(seed=i, temperature=i % 2, grammar=Grammar.regex(pattern)), max_tokens=200)
        for i in range(6)
    ]
    free = [engine.add([9, 2, 6 + i], Sampling(seed=i), max_tokens=10 + 5 * i) for i in range(6)]
    for _ in engine.finished():
        pass
    for request in held:
        assert request.rows[0].finish == "stop"
        assert regex.fullmatch(pattern, tokenizer.decode(request.rows[0].made))
    assert all(request.rows[0].finish in ("stop", "length") for request in free)
    assert engine.blocks.free == engine.blocks.count


class Repeats:
    """In place of the calculator: after a token that 5 divides, its double and its triple are forced."""

    def see(self, row, token):
        if token % 5 == 0 and not row.forced and len(row.masks) % 2:
            row.forced.extend([token * 2 % 400, token * 3 % 400])


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
@pytest.mark.parametrize("cache_tokens", [None, 700], ids=["roomy", "preempting"])
def test_a_step_ahead_of_the_host_gives_what_a_cpu_gives(make_model, tokenizer, switches, cache_tokens):
    """Results are read one step late: rows end, are forced, preempted and cancelled while the next step already runs."""
    answers = {}
    for device in ("cpu", "cuda"):
        model = make_model(depth=4, seq_len=256, **switches).to(device)
        engine = Engine(model, tokenizer, dtype=torch.float32, max_rows=12, cache_tokens=cache_tokens)
        engine._tools = Repeats()
        generator = torch.Generator().manual_seed(1)
        requests = []
        for i in range(24):
            prompt = torch.randint(400, (1 + 7 * i % 90,), generator=generator).tolist()
            how = Sampling(temperature=(0.0, 1.0, 0.8)[i % 3], top_k=(0, 50)[i % 2], top_p=(1.0, 0.9)[i % 5 == 0], seed=i)
            requests.append(engine.add(prompt, how, max_tokens=5 + 9 * i % 80, n=1 + i % 3, key=str(i % 2)))
        dropped = requests[5::7]
        for step in range(1000):
            engine.step()
            if step < len(dropped):
                engine.cancel(dropped[step])
            if not engine.busy:
                break
        assert not engine.busy
        assert engine.blocks.free == engine.blocks.count
        assert all(request.finished for request in requests)
        kept = [request for request in requests if request not in dropped]
        answers[device] = [(list(row.made), list(row.masks), row.finish) for request in kept for row in request.rows]
    differ = sum(ours != theirs for ours, theirs in zip(answers["cuda"], answers["cpu"], strict=True))
    assert any(0 in masks for _, masks, _ in answers["cuda"])
    assert differ <= 1  # rounding may move a bound past a random number


def test_log_probabilities_are_those_of_the_plain_model(make_model, tokenizer):
    model = make_model(depth=4).cuda()
    engine = Engine(model, tokenizer, dtype=torch.float32)
    requests = [engine.add([5, 6, 7 + i], Sampling(seed=i, logprobs=2), max_tokens=6) for i in range(3)]
    found = {request: [] for request in requests}
    while engine.busy:
        for output in engine.step():
            if output.token is not None:
                found[output.row.request].append((output.token, output.logprobs))
    for request, tokens in found.items():
        for i, (token, detail) in enumerate(tokens):
            ids = torch.tensor([[*request.prompt, *(t for t, _ in tokens[:i])]], device="cuda")
            with torch.no_grad():
                logs = model(ids)[0, -1].log_softmax(-1)
            assert detail.token == pytest.approx(logs[token].item(), abs=1e-3)
            assert list(detail.top.values()) == pytest.approx(logs.topk(2).values.tolist(), abs=1e-3)


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
def test_scores_of_shared_beginnings_are_those_of_the_plain_model(make_model, switches):
    model = make_model(depth=4, seq_len=256, **switches).cuda()
    asked = shared_beginnings.groups(60, 900)
    found, wanted = shared_beginnings.losses(Scorer(model, dtype=torch.float32), asked), shared_beginnings.plain(model, asked)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
def test_scores_in_bf16_are_as_near_to_fp32_as_those_of_a_plain_pass_in_bf16(make_model, switches):
    model = make_model(depth=4, seq_len=256, **switches).cuda()
    shared_beginnings.assert_no_worse_than_a_plain_pass(model, torch.bfloat16, shared_beginnings.groups(60, 900))
