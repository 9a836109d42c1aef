"""The demo of the end-to-end tests: a shorter tiny recipe, on real text and task data when they are present."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from client import Client

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
SCREENSHOTS = ROOT / "tests" / "artifacts"

# The tiny recipe made shorter. The steps suffice for a curve and a checkpoint to resume from.
SHORT = {
    "base.num_iterations": 40,
    "base.eval_every": 20,
    "base.core_every": -1,
    "mid.num_iterations": 12,
    "sft.num_iterations": 12,
    "rl.enabled": True,
    "rl.num_iterations": 2,
    "chat_eval.max_problems": 4,
    "chat_eval.max_new_tokens": 48,
}
# The task data that the speedrun reads from the hub, here from a folder. Every kind of task goes through every stage.
HUB = {
    "data.tasks": str(SHARED),
    "data.core": str(SHARED / "core"),
    "data.words": str(SHARED / "words" / "words_alpha.txt"),
    "base_eval.allow_incomplete": True,  # it lacks CoQA
    "base_eval.core_max_per_task": 2,
    "mid.train": [
        {"task": "smoltalk", "limit": 200},
        {"task": "mmlu", "split": "auxiliary_train", "limit": 200},
        {"task": "gsm8k", "limit": 200},
        {"task": "identity", "size": 200, "repeat": 2},
        {"task": "simplespelling", "size": 500},
        {"task": "spellingbee", "size": 200},
    ],
    "mid.val": [{"task": "smoltalk", "split": "test", "limit": 100}, {"task": "gsm8k", "split": "test", "limit": 20}],
    "sft.train": [
        {"task": "arc_easy", "limit": 50},
        {"task": "arc_challenge", "limit": 50},
        {"task": "gsm8k", "limit": 50},
        {"task": "smoltalk", "limit": 50},
        {"task": "identity", "size": 200},
        {"task": "simplespelling", "size": 100},
        {"task": "spellingbee", "size": 100},
    ],
    "sft.val": [{"task": "smoltalk", "split": "test", "limit": 50}],
    "chat_eval.tasks": ["arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval", "spellingbee"],
}


@dataclass(frozen=True)
class Demo:
    home: Path
    log: Path
    process: "subprocess.Popen[bytes]"
    api_url: str
    inference_url: str
    ui_url: str
    key: str
    with_hub_data: bool

    def client(self) -> Client:
        return Client(self.api_url, self.key)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")
