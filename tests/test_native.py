"""Numba, LLVM and connectorx are loaded by who needs them, and not by every process."""

from __future__ import annotations

import subprocess
import sys
import textwrap

HEAVY = ("numba", "llvmlite", "connectorx", "pyarrow")


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_definitions_load_no_compiler():
    answer = python(
        f"""
        import sys
        from algobot_assets.definitions import build_defs

        build_defs()
        print([module for module in {HEAVY} if module in sys.modules])
        """
    )
    assert answer == "[]"


def test_a_first_call_by_several_threads_at_once_gives_each_the_compiled_function():
    answers = python(
        """
        import threading
        import numpy as np
        from algobot_assets.compute import kernels
        from algobot_assets.compute.ledger import kernel
        from algobot_assets.compute.metrics import performance
        from algobot_assets.compute.metrics.performance import total_return
        from algobot_assets.compute.native import Late

        asked = (kernels.crossed, kernel.decisions, performance.figures, total_return)
        assert all(isinstance(function, Late) for function in asked)
        line, level, start, answers = np.array([1.0, 3.0, 2.0]), np.full(3, 2.0), threading.Barrier(8), []

        def ask():
            start.wait()
            found = kernels.crossed(line, level, 0.0, 2.0, True)
            kept, events = kernel.decisions(np.array([0, 1, 0, -1], np.int32))
            answers.append((found.tolist(), events.tolist(), total_return(2.0, 3.0)))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        for module in (kernels, kernel, performance):
            assert not any(isinstance(value, Late) for value in vars(module).values()), module
        print(len(answers), {str(answer) for answer in answers})
        """
    )
    assert answers == "8 {'([False, True, False], [1, 3], 0.5)'}"
