"""Processes: forked and spawned ones step, whatever the parent's threads were doing, and each ends properly.
A scene is a script in its own Python, so that a hang or a crash fails only its test.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: what scenes begin with: optimizers large enough for helpers, and the parameter that k steps of one alone make
COMMON = """
import multiprocessing, os, pickle, sys, threading, time, warnings
import numpy as np
import fastadam
import inside

warnings.simplefilter("ignore")  # of forks beside threads: that they go well is what is tested here
N, STEPS = 200_000, 20
G = np.linspace(-1, 1, N)


def make(**more):
    return fastadam.Adam(np.zeros(N), lr=0.1, n_threads=4, **more)


def stepped(opt, steps=STEPS):
    for _ in range(steps):
        opt.step(G)
    return opt


def result(opt):
    return opt.t, inside.params(opt)[0].tobytes(), opt.state["v"][0].tobytes()


def expected(steps):
    return result(stepped(fastadam.Adam(np.zeros(N), lr=0.1, n_threads=1), steps))


def child(work, *arguments):
    "The exit code of a forked child that does this: 0 where it returns true."
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work(*arguments) else 3)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def refused(text, call):
    try:
        call()
    except RuntimeError as error:
        return text in str(error)
    return False


def steps_anew():
    return result(stepped(make())) == ANEW


def many_steps(count):
    return [result(stepped(make())) == expected(STEPS) for _ in range(count)]


def goes_on(opt):
    return result(stepped(opt)) == expected(2 * STEPS)


if __name__ == "__main__":
    ANEW = expected(STEPS)
"""

#: name -> the rest of the script; it says that all is well
SCENES = {
    "pools": """
    opt = stepped(make())
    for method in sys.argv[1:]:
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert all(sum(pool.map(many_steps, [2] * 4), []))
            assert all(pool.map(goes_on, [opt] * 4))
        stepped(make())
    assert goes_on(opt)
""",
    "loky": """
    import joblib
    opt = stepped(make())
    for backend in ("loky", "multiprocessing", "threading"):
        run = joblib.Parallel(n_jobs=2, backend=backend, max_nbytes=None)  # else large arrays arrive read-only
        assert all(sum(run(joblib.delayed(many_steps)(2) for _ in range(4)), []))
        copied = [pickle.loads(pickle.dumps(opt)) for _ in range(4)]
        assert all(run(joblib.delayed(goes_on)(one) for one in copied))
    assert goes_on(opt)
""",
    "forks within forks": """
    opt = stepped(make())
    def deeper(depth):
        good = steps_anew() and (depth == 0 or child(deeper, depth - 1) == 0)
        return good and goes_on(opt)
    assert [child(deeper, 3) for _ in range(3)] == [0] * 3
    assert goes_on(opt)
""",
    "fork from a thread": """
    opt = stepped(make())
    codes = []
    def work():
        codes.append(child(lambda: steps_anew() and goes_on(opt)))
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert codes == [0] * 8
    assert goes_on(opt)
""",
    # The pool is taken, its helpers spin, sleep or work; the optimizers that are inside of a step cannot go on.
    "fork while threads step": """
    done = threading.Event()
    others = [make() for _ in range(3)]
    def work(opt):
        while not done.is_set():
            opt.step(G)
    threads = [threading.Thread(target=work, args=(opt,)) for opt in others]
    for thread in threads: thread.start()
    within = "this process was forked while another thread was inside a step of this optimizer"
    def inherited():
        seen = 0
        for opt in others:
            try:
                t = opt.t
                opt.step(G)
            except RuntimeError as error:
                calls = opt.state_dict, lambda: pickle.dumps(opt)
                if within not in str(error) or not all(refused(within, call) for call in calls):
                    return False
                seen = 64
            else:
                if result(opt) != expected(t + 1):
                    return False
        if not steps_anew():
            return False
        os._exit(seen)
    codes = [child(inherited) for _ in range(15)]
    done.set()
    for thread in threads: thread.join()
    assert set(codes) <= {0, 64} and 64 in codes, codes
    for opt in others:
        assert result(opt) == expected(opt.t)
""",
    "fork while threads assign options": """
    done = threading.Event()
    opt = make()
    def work():
        while not done.is_set():
            opt.lr = 0.1
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    def assigns():
        opt.lr = 0.1
        return result(stepped(opt)) == ANEW
    codes = [child(assigns) for _ in range(20)]
    done.set()
    for thread in threads: thread.join()
    assert codes == [0] * 20, codes
""",
    "fork with states in a folder": """
    at = sys.argv[1]
    opt = make(state_dir=at)
    stepped(opt, 2)
    copied = pickle.loads(pickle.dumps(opt))
    before = [open(os.path.join(at, name), "rb").read() for name in sorted(os.listdir(at))]
    not_ours = "its states are those of the process that this one was forked from"
    def heir():
        good = all(refused(not_ours, call) for call in (lambda: opt.step(G), opt.state_dict, lambda: pickle.dumps(opt)))
        good &= refused("another optimizer uses this folder", lambda: make(state_dir=at))
        opt.close()  # which is nothing to the parent
        good &= refused("another optimizer uses this folder", lambda: make(state_dir=at))
        return good and result(stepped(copied, 3)) == expected(5)
    assert child(heir) == 0
    assert before == [open(os.path.join(at, name), "rb").read() for name in sorted(os.listdir(at))]
    assert refused("another optimizer uses this folder", lambda: make(state_dir=at))
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:  # a child that outlives the parent's optimizer keeps nothing locked
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        os._exit(0 if make(state_dir=at).t == 3 else 3)
    os.read(ready[0], 1)
    stepped(opt, 1)
    del opt
    again = make(state_dir=at)
    assert again.t == 3
    again.close()
    os.write(go[1], b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
    "a parent that is killed leaves no lock": """
    at = sys.argv[1]
    told = os.pipe()
    parent = os.fork()
    if parent == 0:
        opt = make(state_dir=at)
        if os.fork() == 0:
            os.write(told[1], str(os.getpid()).encode())
        time.sleep(20)
        os._exit(3)
    orphan = int(os.read(told[0], 100))
    os.kill(parent, 9)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -9
    try:
        assert make(state_dir=at).t == 0
    finally:
        os.kill(orphan, 9)  # it was there all the time
""",
    "exit": """
    stepped(make(), 3)
    {"spinning": lambda: None, "sleeping": lambda: time.sleep(0.05)}[sys.argv[1]]()
""",
    "work at exit": """
    import atexit
    at = sys.argv[1]
    opts = [make(), make(backend="numpy"), make(state_dir=at + "/states")]
    def last():
        for k, opt in enumerate(opts):
            stepped(opt).save(f"{at}/{k}.npz", params=True)
            opt.load(f"{at}/{k}.npz")
            assert result(opt) == ANEW
    atexit.register(last)
""",
    "exit within a step": """
    large, g = np.zeros(4_000_000, np.float32), np.ones(4_000_000, np.float32)
    opt = fastadam.Adam(large, n_threads=4, backend=sys.argv[1])
    opt.step(g)
    def work():
        while True:
            opt.step(g)
    threading.Thread(target=work, daemon=True).start()
    while opt.t < 3:
        time.sleep(1e-3)
""",
}

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def play(scene: str, *arguments: str | Path, tmp_path: Path, timeout: float = 120) -> None:
    """Run a scene, from a file so that spawned processes find its functions; it may say nothing but that it is over."""
    script = tmp_path / "scene.py"
    script.write_text(COMMON + SCENES[scene] + '    print("over")\n')
    run(script, *arguments, timeout=timeout)


def run(*command: str | Path, timeout: float = 120) -> None:
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "over\n", "")


@FORK
def test_pools_of_every_kind(tmp_path: Path) -> None:
    play("pools", "fork", "forkserver", "spawn", tmp_path=tmp_path)


def test_joblib(tmp_path: Path) -> None:
    play("loky", tmp_path=tmp_path)


@FORK
@pytest.mark.parametrize("scene", [name for name in SCENES if name.startswith("fork")])
def test_fork(scene: str, tmp_path: Path) -> None:
    play(scene, tmp_path / "states", tmp_path=tmp_path)


@FORK
def test_parent_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    play("a parent that is killed leaves no lock", tmp_path / "states", tmp_path=tmp_path)


@pytest.mark.parametrize("helpers", ["spinning", "sleeping"])
def test_exit(helpers: str, tmp_path: Path) -> None:
    for _ in range(2):
        play("exit", helpers, tmp_path=tmp_path)


def test_work_at_exit(tmp_path: Path) -> None:
    """When Python 3.12 starts no threads; an error would be printed."""
    play("work at exit", tmp_path, tmp_path=tmp_path)
    assert (tmp_path / "2.npz").exists()


@pytest.mark.parametrize("backend", ["cython", "numba", "numpy"])
def test_exit_within_a_step_of_a_daemon(backend: str, tmp_path: Path) -> None:
    for _ in range(2 if backend == "cython" else 1):
        play("exit within a step", backend, tmp_path=tmp_path)


IN_A_THREAD = """
import threading
failed = []
def work():
    try:
        import numpy as np
        barrier.wait()
        import fastadam
        p = np.zeros(100_000)
        opt = fastadam.Adam(p, lr=0.5, n_threads=4)
        opt.step(np.ones(p.size))
        assert opt.t == 1 and abs(p + 0.5).max() < 1e-6
    except BaseException as error:
        failed.append(error)
        raise
barrier = threading.Barrier({count})
threads = [threading.Thread(target=work) for _ in range({count})]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed
print("over")
"""


@pytest.mark.parametrize("count", [1, 8])
def test_first_import_in_threads(count: int) -> None:
    run("-c", IN_A_THREAD.format(count=count))


IN_A_SUBINTERPRETER = """
import importlib, os, sys
{first}
subinterpreters = importlib.import_module("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
script = '''
import warnings
warnings.simplefilter("ignore")  # NumPy's own, that it knows no sub-interpreters
try:
    import fastadam, numpy as np
    p = np.zeros(100_000)
    fastadam.Adam(p, lr=0.5, n_threads=4).step(np.ones(p.size))
    said = "stepped" if abs(p + 0.5).max() < 1e-6 else "wrong"
except (ImportError, RuntimeError):  # the latter from NumPy 2.0
    said = "refused"
import os
os.write({handle}, said.encode())
'''
reading, writing = os.pipe()
for _ in range(2):
    interpreter = subinterpreters.create()
    subinterpreters.run_string(interpreter, script.replace("{{handle}}", str(writing)))
    subinterpreters.destroy(interpreter)
    said = os.read(reading, 100).decode()
    assert said in ("stepped", "refused"), said
{last}
print("over")
"""


@pytest.mark.parametrize("first", [True, False])
def test_sub_interpreter(first: bool) -> None:
    """An ImportError (Cython's modules are of one interpreter) or a step; the main interpreter goes on."""
    use = "import fastadam, numpy as np; fastadam.Adam(np.ones(100_000), n_threads=4).step(np.ones(100_000))"
    run("-c", IN_A_SUBINTERPRETER.format(first=use if first else "", last=use if first else "", handle="{handle}"))
