"""Compile loops with Numba at their first call, and add two instructions that Numba lacks.

Nothing here changes what a loop computes, only when and how fast it runs. Numba is loaded at the first call because
every process imports the loops (the daemon, the web server, a run that only fetches candles), most of them call none,
and Numba with LLVM takes 55 MB of memory.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

_making = threading.RLock()


class Late:
    """A function that is compiled when it is first called, and then replaces itself in the module that names it.

    Compiled code sees the globals of its module as they are at compile time, so all functions of a module are compiled
    together, with those of the modules they come from.
    """

    def __init__(self, make: Callable[[], Callable[..., Any]], home: dict[str, Any]) -> None:
        self._make = make
        self._home = home
        self._made: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, after compiling it if necessary."""
        with _making:
            _settle(self._home)
            made = self.made()
        return made(*arguments)

    def made(self) -> Callable[..., Any]:
        """Return the compiled function. The caller holds the lock."""
        if self._made is None:
            self._made = self._make()
            _settle(self._home)
        return self._made


def _settle(home: dict[str, Any]) -> None:
    """Replace the stand-ins in a module by their compiled functions."""
    for name, value in list(home.items()):
        if isinstance(value, Late):
            home[name] = value.made()


def compiled(*, nogil: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function with `numba.njit`, with its machine code cached on disk.

    ``nogil`` lets other threads run meanwhile.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def make() -> Callable[..., Any]:
            from numba import njit

            made: Callable[..., Any] = njit(cache=True, nogil=nogil)(function)
            return made

        return _standing_in_for(function, make)

    return decorate


def _standing_in_for(function: Callable[P, R], make: Callable[[], Callable[..., Any]]) -> Callable[P, R]:
    late: Any = Late(make, function.__globals__)
    functools.update_wrapper(late, function)
    return cast(Callable[P, R], late)


def _intrinsic(make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    return _standing_in_for(make, make)


@_intrinsic
def borrowed() -> Callable[..., Any]:
    """borrowed(array): the same array without its reference count; valid while the caller holds the array itself.

    Counting references is an atomic instruction at every call that takes an array: a seventh of the ledger's time, and
    more if threads share the candles.
    """
    from llvmlite import ir
    from numba.extending import intrinsic

    @intrinsic
    def borrowed(_context: Any, array: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            view = context.make_array(signature.args[0])(context, builder, args[0])
            view.meminfo = ir.Constant(view.meminfo.type, None)
            return view._getvalue()

        return array(array), codegen

    return borrowed


@_intrinsic
def prefetch() -> Callable[..., Any]:
    """prefetch(array, index): request the cache line of `array[index]`, to be read soon. The index must be valid."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def prefetch(_context: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
            call = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            to_read, keep, is_data = whole(0), whole(3), whole(1)
            builder.call(call, [builder.bitcast(builder.gep(data, [args[1]]), byte), to_read, keep, is_data])
            return context.get_dummy_value()

        return types.void(array, index), codegen

    return prefetch
