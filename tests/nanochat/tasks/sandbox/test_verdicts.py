"""A verdict is the test's: a program can neither forge it nor see what it asks, and a right program passes as in one process."""

import json
import os
import textwrap
import threading
import time
from pathlib import Path

import pytest

from nanochat.tasks.sandbox import Sandbox

HUMANEVAL = Path(__file__).parents[5] / "shared/data/humaneval/HumanEval.jsonl"

TEST = """
HIDDEN = "what-the-test-knows"

def check(candidate):
    assert candidate(2) == 4
    assert candidate(3) == 9

check(square)
"""
WRONG = "def square(x):\n    return 0\n"

CHEATS = {
    "nothing": WRONG,
    "leaves with 0": "import os; os._exit(0)",
    "leaves with 0 when called": "import os\ndef square(x): os._exit(0)",
    "leaves politely": WRONG + "import sys; sys.exit(0)",
    "leaves politely when called": "import sys\ndef square(x): sys.exit(0)",
    "raises what ends loops": "def square(x): raise StopIteration",
    "raises what ends everything": "def square(x): raise KeyboardInterrupt",
    "closes all files": WRONG + "import os; os.closerange(0, 64)",
    "writes a verdict everywhere": WRONG
    + "import os\nfor fd in range(64):\n  for text in (b'ok', b'{\"end\": \"ok\"}\\n', b'{\"success\": true}\\n'):\n"
    + "    try: os.write(fd, text)\n    except OSError: pass\n",
    "writes a verdict through the frames": WRONG
    + "import sys, os\nframe = sys._getframe()\nwhile frame:\n  for value in list(frame.f_locals.values()):\n"
    + "    for fd in [v for v in vars(value).values() if type(v) is int] if hasattr(value, '__dict__') else []:\n"
    + "      try: os.write(fd, b'ok')\n      except OSError: pass\n  frame = frame.f_back\n",
    "writes a verdict to the arguments": WRONG
    + "import sys, os\nprint(sys.argv, sys.orig_argv)\nos.write(int(sys.orig_argv[-2]), b'ok')",
    "says ok and waits": WRONG + 'import os, time; os.write(4, b\'{"end": "ok"}\\n\'); time.sleep(9)',
    "patches the way out": WRONG + "import os, sys, builtins\nos._exit = sys.exit = builtins.exit = lambda *a: None",
    "patches writing": WRONG
    + "import os, json\nwrite = os.write\nos.write = lambda fd, data: write(fd, b'ok')\njson.dumps = lambda *a: 'ok'",
    "patches the harness": WRONG
    + "import sys\nfor name, module in list(sys.modules.items()):\n  if 'confined' in name:\n"
    + "    for key, value in list(vars(module).items()):\n      if callable(value) and not isinstance(value, type): setattr(module, key, lambda *a, **k: 'ok')\n",
    "patches the comparison": WRONG
    + "import operator, builtins\noperator.eq = lambda a, b: True\nbuiltins.AssertionError = type('A', (), {})",
    "defines the check": WRONG + "def check(candidate): pass",
    "defines the builtins": WRONG
    + "import builtins\nbuiltins.check = print\nfor n in ('all', 'abs', 'len'): setattr(builtins, n, lambda *a: 0)",
    "traces": WRONG
    + "import sys, threading\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: None); threading.settrace(print)",
    "leaves at exit": WRONG + "import atexit, os; atexit.register(os._exit, 0)",
    "handles every signal": WRONG + "import signal, os\nsignal.signal(signal.SIGTERM, lambda *a: os._exit(0))",
    "answers in a thread": WRONG
    + "import threading, os\nthreading.Thread(target=lambda: [os.write(4, b'{\"value\": 4}\\n') for _ in range(3)]).start()",
    "answers with deep JSON": "import os\ndef square(x):\n  os.write(4, b'[' * 200_000 + b']' * 200_000 + b'\\n')",
    "answers with endless JSON": "import os\ndef square(x):\n  while True: os.write(4, b'[' * 65536)",
    "answers with a deep list": "def square(x):\n  for _ in range(10**5): x = [x]\n  return x",
    "answers with a list of itself": "def square(x):\n  x = []\n  x.append(x)\n  return x",
    "answers with unknown kinds": 'import os\ndef square(x): os.write(4, b\'{"value": {"as": "pickle", "of": "x"}}\\n\')',
    "answers with a builtin": 'import os\ndef square(x): os.write(4, b\'{"value": {"as": "builtin", "of": "exit"}}\\n\')',
    "raises with no exception": 'import os\ndef square(x): os.write(4, b\'{"raise": {"as": "builtin", "of": "print"}, "text": "x"}\\n\')',
    "raises what cannot be printed": (
        "class E(Exception):\n  def __str__(self): raise SystemExit(0)\n  __repr__ = __str__\ndef square(x): raise E()"
    ),
    "reads the test": (
        "import gc, os, sys\nfound = [o for o in gc.get_objects() if isinstance(o, dict) and 'HIDDEN' in o]\n"
        "frame = sys._getframe()\nwhile frame: found += ['HIDDEN' in frame.f_globals] * ('HIDDEN' in frame.f_globals); frame = frame.f_back\n"
        "for fd in range(64):\n  try: found += [os.pread(fd, 10**6, 0)] if b'HIDDEN' in os.pread(fd, 10**6, 0) else []\n  except OSError: pass\n"
        "for name in os.listdir('.'): found.append(open(name).read())\n"
        "def square(x): return x * x if found else 0\n"
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_does_not_pass(box: Sandbox, name: str):
    result = box.run(CHEATS[name], TEST, timeout_s=2)
    assert not result.success
    assert "what-the-test-knows" not in result.stdout


def test_the_test_is_nowhere_in_the_programs_memory(box: Sandbox):
    """Not by its text and not by the values that it expects. A scan of every object of the interpreter finds neither."""
    program = """
    import gc
    def everything():
        seen, queue = set(), list(gc.get_objects())
        while queue:
            item = queue.pop()
            if id(item) in seen or len(seen) > 10**6: continue
            seen.add(id(item))
            if isinstance(item, (str, bytes)): yield item if isinstance(item, str) else item.decode('latin-1')
            else: queue.extend(gc.get_referents(item))
    def found(): return any('-'.join(['what', 'the', 'test', 'knows']) in text for text in everything())
    def square(x): return 'found' if found() else 'nothing'
    """
    assert box.run(textwrap.dedent(program), "assert square(2) == 'nothing'\nx = 'what-the-test-knows'", timeout_s=30).success


def test_an_object_that_equals_everything_passes_as_in_the_benchmark(box: Sandbox):
    """HumanEval's own weakness, kept so that scores compare."""
    assert box.run("class Any:\n  __eq__ = lambda a, b: True\ndef square(x): return Any()", TEST).success


def test_a_program_without_a_test_has_to_reach_its_end(box: Sandbox):
    assert box.run("print(__name__)").stdout == "builtins\n"
    for program, says in {
        "assert 1 == 2": "AssertionError",
        "def f(:": "SyntaxError",
        "input()": "EOFError",
        "def f(): f()\nf()": "RecursionError",
        "import sys; sys.exit(0)": "SystemExit",
        "quit()": "NameError",
    }.items():
        result = box.run(program)
        assert not result.success
        assert says in result.stderr


ORDINARY = {
    "library": (
        "import math, re, typing, collections, itertools, functools, heapq, hashlib, json, random, string, datetime, decimal\n"
        "import statistics, bisect, operator, fractions, enum, dataclasses, abc, copy, textwrap, queue, zlib, sqlite3, zoneinfo\n"
        "def f(): return [math.comb(5, 2), re.findall('a+', 'aab'), hashlib.md5(b'x').hexdigest()[:4], zlib.crc32(b'x')]",
        "assert f() == [10, ['aa'], '9dd4', 2363233923]",
    ),
    "files": (
        "import tempfile, os, shutil, pathlib\n"
        "def f():\n  with tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile('w+') as t:\n"
        "    pathlib.Path(d, 'a').write_text('x'); shutil.copyfile(d + '/a', d + '/b'); os.rename(d + '/b', d + '/c')\n"
        "    t.write('hello'); t.seek(0)\n    return sorted(os.listdir(d)), t.read()",
        "assert f() == (['a', 'c'], 'hello')",
    ),
    "a file for the test": ("def f(): open('out.txt', 'w').write('x')", "f()\nassert open('out.txt').read() == 'x'"),
    "database": (
        "import sqlite3\ndef f():\n  c = sqlite3.connect('x.db'); c.execute('create table t (a)'); c.execute('insert into t values (3)')\n"
        "  c.commit(); return c.execute('select a from t').fetchall()",
        "assert f() == [(3,)]",
    ),
    "text streams": (
        "import io, sys\ndef f():\n  s = io.StringIO(); print('x', file=s); return s.getvalue()",
        "assert f() == 'x\\n'",
    ),
    "threads": (
        "import threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "def f():\n  with ThreadPoolExecutor(4) as pool: return list(pool.map(lambda x: x * x, range(5)))",
        "assert f() == [0, 1, 4, 9, 16]",
    ),
    "asyncio": (
        "import asyncio\nasync def g(): await asyncio.sleep(0.01); return 7\ndef f(): return asyncio.run(g())",
        "assert f() == 7",
    ),
    "signals of its own": (
        "import os, signal\ngot = []\nsignal.signal(signal.SIGUSR1, lambda *a: got.append(1))\n"
        "def f(): signal.raise_signal(signal.SIGUSR1); os.kill(os.getpid(), signal.SIGUSR1); return got",
        "assert f() == [1, 1]",
    ),
    "unit tests": (
        "import unittest\nclass T(unittest.TestCase):\n  def test(self): self.assertEqual(1, 1)\n"
        "def f(): return unittest.TestResult() if 0 else unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T)).testsRun",
        "assert f() == 1",
    ),
    "main block is not run": ("def f(): return 1\nif __name__ == '__main__':\n  import sys; sys.exit(f())", "assert f() == 1"),
    "recursion": ("def f(n): return n if n < 2 else f(n - 1) + f(n - 2)", "assert f(20) == 6765"),
}

VALUES = {
    "plain data": (
        "def f(x): return x",
        "for x in (None, True, 0, -1.5, 'ä', b'\\xff', [1, [2]], (1, (2,)), {1: {(2, 3): 4}}, {1, 2}, frozenset({3}), 1j, range(3), ...):\n  y = f(x)\n  assert y == x and type(y) is type(x), x",
    ),
    "large numbers": ("def f(n): return 7 ** n", "assert f(20_000) == 7 ** 20_000\nassert f(-1) == 1 / 7"),
    "no number": (
        "def f(): return [float('nan'), float('inf'), -0.0]",
        "import math\na, b, c = f()\nassert a != a and b > 1e308 and math.copysign(1, c) == -1",
    ),
    "odd text": ("def f(s): return s[::-1]", "assert f('\\ud800\\n\\0') == '\\0\\n\\ud800'"),
    "changed arguments": (
        "def f(x, d, s): x.sort(); x.append([9]); d['k'].append(1); s.clear()",
        "x, d, s = [3, 1], {'k': []}, {1}\ninner = d['k']\nf(x, d, s)\nassert x == [1, 3, [9]] and d == {'k': [1]} and inner == [1] and s == set()",
    ),
    "containers": (
        "import collections\ndef f(): return collections.Counter('aab'), collections.deque([1]), collections.OrderedDict(a=1), collections.namedtuple('P', 'x y')(1, 2)",
        "c, d, o, p = f()\nassert c == {'a': 2, 'b': 1} and list(d) == [1] and o['a'] == 1 and p == (1, 2) and p.x == 1\nassert isinstance(c, dict) and isinstance(p, tuple) and len(c) == 2 and 'a' in c",
    ),
    "iterators": (
        "def f():\n  yield 1\n  yield 2",
        "assert list(f()) == [1, 2]\nassert next(f()) == 1\nassert sum(f()) == 3\nassert {x: x for x in f()} == {1: 1, 2: 2}",
    ),
    "views": ("def f(): return {1: 2}.keys()", "assert f() == {1} and list(f()) == [1] and 1 in f()"),
    "classes": (
        "class P:\n  def __init__(self, x): self.x = x\n  def __add__(self, o): return P(self.x + o.x)\n  def __eq__(self, o): return self.x == o.x\n  def __len__(self): return 3",
        "p = P(1) + P(2)\nassert p == P(3) and p.x == 3 and len(p) == 3 and p\np.x = 5\nassert p.x == 5 and [P(1)] == [P(1)]",
    ),
    "numbers of its own": (
        "import decimal, fractions\ndef f(): return decimal.Decimal('0.5'), fractions.Fraction(1, 3)",
        "d, q = f()\nassert d == 0.5 and abs(d - 1) == 0.5 and 3 * q == 1 and round(d + 2) == 2 and float(q) < 0.34 and int(d) == 0 and q < d",
    ),
    "exceptions": (
        "class Odd(ValueError): pass\ndef f(x):\n  if x: raise Odd('odd')\n  return {}[1]",
        "for kind, x in ((ValueError, 1), (Odd, 1), (KeyError, 0), (LookupError, 0)):\n  try: f(x)\n  except kind as err: pass\n  else: raise AssertionError(kind)",
    ),
    "callbacks": (
        "def f(g, xs): return [g(x) for x in xs], max(xs, key=g)",
        "assert f(lambda x: -x, [1, 2]) == ([-1, -2], 1)\ndef bad(x): raise ValueError('no')\ntry: f(bad, [1])\nexcept ValueError as err: assert 'no' in str(err)\nelse: assert 0",
    ),
    "keywords and defaults": ("def f(*a, k=1, **kw): return a, k, kw", "assert f(1, k=2, z=3) == ((1,), 2, {'z': 3})"),
    "modules and types": (
        "import math as m\nKIND = int\nfrom typing import List",
        "assert m.pi > 3 and KIND is int and isinstance(1, KIND)",
    ),
    "nested calls of names": (
        "def g(x): return x + 1\ndef f(x): return x * 2",
        "def check(c):\n  import random\n  for _ in range(50):\n    n = random.randint(1, 9)\n    assert g(c(n)) == 2 * n + 1\ncheck(f)",
    ),
    "its own builtin": ("def sum(x): return -1\ndef f(x): return sum(x)", "assert f([1]) == -1 and sum([1, 2]) == 3"),
    "printing": ("def f(): print('from f')", "f()\nprint('from the test')"),
}


@pytest.mark.parametrize("name", [*ORDINARY, *VALUES])
def test_an_ordinary_program_passes(box: Sandbox, name: str, nothing_left: None):
    program, test = {**ORDINARY, **VALUES}[name]
    result = box.run(program, test, timeout_s=20)
    assert result.success, result.stderr
    assert not box.run(program, test + "\nassert False", timeout_s=20).success


def test_a_test_that_gives_what_cannot_travel_says_so(box: Sandbox):
    result = box.run("def f(x): return 1", "import io\nf(io.StringIO())")
    assert not result.success
    assert "a test can give a program plain data, functions and its own objects, not StringIO" in result.stderr


def test_a_missing_name_is_a_name_error(box: Sandbox):
    assert "NameError: name 'g' is not defined" in box.run("def f(): pass", "def check(): g()\ncheck()").stderr


def test_output_of_program_and_test_is_returned(box: Sandbox):
    result = box.run("def f(): print('from f')", "f()\nprint('from the test')")
    assert result.stdout == "from f\nfrom the test\n"


def test_programs_run_side_by_side(box: Sandbox):
    right = [False] * 8

    def work(i: int) -> None:
        right[i] = box.run(f"def f(): return {i}", f"assert f() == {i}", timeout_s=30).success

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(right))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(right)


def test_time_is_not_spent_on_starting_interpreters(box: Sandbox):
    """20 programs take less than 20 interpreters' starts would on this machine: they are forks."""
    box.run("x = 1")
    used = os.times()
    start = time.monotonic()
    assert all(box.run("def f(): return 1", "assert f() == 1").success for _ in range(20))
    assert time.monotonic() - start < 20
    assert os.times().user - used.user < 1  # of this process: nothing is compiled or imported for a program


@pytest.mark.skipif(not HUMANEVAL.is_file(), reason=f"no {HUMANEVAL}")
def test_all_reference_solutions_of_humaneval_pass(box: Sandbox):
    rows = [json.loads(line) for line in HUMANEVAL.read_text(encoding="utf-8").splitlines()]
    wrong = []
    for row in rows if "user namespaces" in box.walls else rows[::8]:
        test = f"{row['test']}\n\ncheck({row['entry_point']})"
        if not box.run(row["prompt"] + row["canonical_solution"], test, timeout_s=30).success:
            wrong.append(row["task_id"])
    assert wrong == []
    assert len(rows) == 164
    row = rows[0]
    assert not box.run(row["prompt"] + "    return None\n", f"{row['test']}\n\ncheck({row['entry_point']})").success
