"""Lead an account through its candles: the one loop of the ledger that cannot be vectorised.

It executes orders, stops and targets, and keeps marks and running sums, all in plain arrays.

Everything is float64 holding whole numbers where exactness counts: prices and money in units of 1e-8 of the
quote asset (exact below 2**53 units, 9.007e7 quote), times in milliseconds since 1970-01-01. A sum of such
numbers is exact, so only products are rounded: r8(x) = rint(x * 1e8) / 1e8 keeps its numerator.

The layout constants live beside the code that uses them because Numba's cache watches this file alone:
after a change, a constant imported from another module would live on in cached machine code.
"""

from __future__ import annotations

import numpy as np

from algobot_assets.compute.native import borrowed, compiled, prefetch

LAYOUT_VERSION = 1.0
UNIT = 1e8
LIMIT = 9e15  # units: money beyond 9e7 quote is refused, because float64 could no longer hold every unit
TWO_53 = 9007199254740992.0

# fmt: off
# The carried state: HEAD scalars, then LOT scalars for every open lot, oldest first.
(
    LAYOUT, START, INITIAL, CASH, EQUITY, PEAK, DRAWDOWN, RETURNS, MEAN, M2, CLOSED, WON, SUM_WON,
    SUM_LOST, SUM_PCT, AMBIGUOUS, SKIPPED, SIDE, ORDER, ORDER_TIME, ORDER_EQUITY, ENDED, LOTS,
) = range(23)
HEAD = 23
(
    ENTRY_TIME, ENTRY_SIGNAL, QUANTITY, STEPS, STEP, ENTRY_PRICE, NOTIONAL, ENTRY_FEE, ENTRY_SLIPPAGE,
    STOP, STOP_FILL, TARGET, TARGET_FILL, STOP_REASON,
) = range(14)
LOT = 14

# One row per closed trade.
(
    T_ENTRY_TIME, T_EXIT_TIME, T_SIDE, T_ENTRY_PRICE, T_EXIT_PRICE, T_PCT, T_FEE, T_ENTRY_SIGNAL,
    T_EXIT_SIGNAL, T_STEPS, T_STEP, T_GROSS, T_NET, T_SLIPPAGE, T_REASON, T_AMBIGUOUS, T_DAY,
) = range(17)
TRADE = 17

# One row per closed trade and per day: what the metrics are made of, as of one candle close.
(
    S_EQUITY, S_DRAWDOWN, S_RETURNS, S_MEAN, S_M2, S_CLOSED, S_WON, S_SUM_WON, S_SUM_LOST, S_SUM_PCT,
    S_END, S_LOTS, S_OPEN_PROFIT, S_AMBIGUOUS,
) = range(14)
SNAPSHOT = 14

# The terms in force, as numbers.
(
    K_RISK, K_STOP, K_STOP_PCT, K_TARGET_PCT, K_MAX_LOTS, K_TICK, K_STEP, K_MIN_NOTIONAL, K_FEE, K_BPS,
    K_SHORTING, K_MINUTES,
) = range(12)
KNOBS = 12

# One row per day: signals that led to no order, by reason.
(
    U_BELOW_MIN_NOTIONAL, U_ROUNDED_TO_ZERO, U_NO_CAPITAL, U_AT_MAX_OPEN_TRADES, U_OUTSIDE_DATES, U_SHORTING_OFF,
) = range(6)
UNFILLED = 6
# fmt: on

SIGNAL, STOP_LOSS, TAKE_PROFIT, COLLATERAL, SUPERSEDED = 1.0, 2.0, 3.0, 4.0, 5.0
DAY_MS = 86400000.0
BLOCK = 32  # candles that are skipped at once if none of them can matter
AHEAD = 3  # signals ahead for which candles are prefetched: most of the time went into waiting for memory


@compiled()
def level_units(price: float, pct: float, sign: float, up: bool) -> float:
    """Return price x (1 + sign x pct / 1e10) in units, rounded down or up to a whole unit, exactly.

    `price` is in units, `pct` in 1e-8 of a percent. The product has up to 27 digits, so it is computed in parts that
    fit 64-bit integers. Levels that no price can reach are -inf and inf.
    """
    base = 10_000_000_000
    m = base + np.int64(sign) * np.int64(pct)
    if m <= 0:
        return -np.inf
    if price * (m / 1e10) >= TWO_53:
        return np.inf
    k = np.int64(price)
    whole, part = m // base, m % base
    high, low = k // base, k % base
    a = low * (part // 100_000)
    rest = (a % 100_000) * 100_000 + low * (part % 100_000)
    level = k * whole + high * part + a // 100_000 + rest // base
    if up and rest % base != 0:
        level += 1
    return np.float64(level)


@compiled()
def on_tick(level: float, tick: float, up: bool) -> float:
    """Return `level` moved down or up to a multiple of `tick`.

    A tick larger than the level is ignored: prices were below it, so it cannot have been the tick of that day.
    """
    if tick == 1.0 or not np.isfinite(level) or level < tick:
        return level
    k, t = np.int64(level), np.int64(tick)
    down = (k // t) * t
    if up and down < k:
        return np.float64(down + t)
    return np.float64(down)


@compiled()
def account_equity(head: np.ndarray, lots: np.ndarray, price: float) -> float:
    """Return cash plus the marks of all lots at `price`, in units. A mark contains no future costs."""
    quote = price / UNIT
    equity: float = head[CASH]
    for j in range(np.int64(head[LOTS])):
        mark = np.rint(lots[j, QUANTITY] * quote * UNIT)
        equity += mark if head[SIDE] > 0 else 2.0 * lots[j, NOTIONAL] - mark
    return equity


@compiled()
def mark(head: np.ndarray, equity: float) -> bool:
    """Take `equity` as the mark of a candle's close and update peak and max drawdown. False beyond LIMIT."""
    head[EQUITY] = equity
    if equity > head[PEAK]:
        head[PEAK] = equity
    else:
        drawdown = equity / head[PEAK] - 1.0
        if drawdown < head[DRAWDOWN]:
            head[DRAWDOWN] = drawdown
    return abs(equity) < LIMIT


@compiled()
def add_return(count: float, mean: float, m2: float, value: float) -> tuple[float, float, float]:
    """Return count, mean and sum of squared deviations after `value`, by Welford's recursion."""
    count += 1.0
    delta = value - mean
    mean += delta / count
    return count, mean, m2 + delta * (value - mean)


@compiled()
def daily_return(equity: float, before: float) -> float:
    """Return the return of a day; NaN, and with it every later Sharpe ratio, once the account is empty."""
    return equity / before - 1.0 if before > 0.0 else np.nan


@compiled()
def snapshot(
    head: np.ndarray, lots: np.ndarray, count: float, mean: float, m2: float, end: float, rows: np.ndarray, r: int
) -> None:
    """Write the inputs of the metrics at this mark into row `r`."""
    rows[r, S_EQUITY], rows[r, S_DRAWDOWN], rows[r, S_END] = head[EQUITY], head[DRAWDOWN], end
    rows[r, S_RETURNS], rows[r, S_MEAN], rows[r, S_M2] = count, mean, m2
    rows[r, S_CLOSED], rows[r, S_WON] = head[CLOSED], head[WON]
    rows[r, S_SUM_WON], rows[r, S_SUM_LOST], rows[r, S_SUM_PCT] = head[SUM_WON], head[SUM_LOST], head[SUM_PCT]
    rows[r, S_LOTS], rows[r, S_AMBIGUOUS] = head[LOTS], head[AMBIGUOUS]
    profit = head[EQUITY] - head[CASH]
    for j in range(np.int64(head[LOTS])):
        profit -= lots[j, NOTIONAL] + lots[j, ENTRY_FEE] + lots[j, ENTRY_SLIPPAGE]
    rows[r, S_OPEN_PROFIT] = profit


@compiled()
def close_lot(
    head: np.ndarray,
    lots: np.ndarray,
    j: int,
    price: float,
    time: float,
    reason: float,
    signal_time: float,
    ambiguous: bool,
    knobs: np.ndarray,
    day: float,
    trades: np.ndarray,
    t: int,
) -> bool:
    """Sell lot `j`, or buy it back, at `price`: update cash, sums and row `t` of trades. False beyond LIMIT."""
    notional, fees, slippages = lots[j, NOTIONAL], lots[j, ENTRY_FEE], lots[j, ENTRY_SLIPPAGE]
    out = np.rint(lots[j, QUANTITY] * (price / UNIT) * UNIT)
    fee = np.rint(out / UNIT * knobs[K_FEE] * UNIT)
    slippage = np.rint(out / UNIT * knobs[K_BPS] / 10000.0 * UNIT)
    if head[SIDE] > 0.0:
        gross = out - notional
        head[CASH] += out - fee - slippage
    else:
        gross = notional - out
        head[CASH] += 2.0 * notional - out - fee - slippage
    fees += fee
    slippages += slippage
    net = gross - fees - slippages
    pct = np.rint(100.0 * (net / UNIT) / (notional / UNIT) * UNIT)
    head[CLOSED] += 1.0
    head[SUM_PCT] += pct
    if net > 0.0:
        head[WON] += 1.0
        head[SUM_WON] += net
    else:
        head[SUM_LOST] += net
    if ambiguous:
        head[AMBIGUOUS] += 1.0
    r = min(t, trades.shape[0] - 1)
    trades[r, T_ENTRY_TIME], trades[r, T_EXIT_TIME], trades[r, T_DAY] = lots[j, ENTRY_TIME], time, day
    trades[r, T_ENTRY_SIGNAL], trades[r, T_EXIT_SIGNAL] = lots[j, ENTRY_SIGNAL], signal_time
    trades[r, T_ENTRY_PRICE], trades[r, T_EXIT_PRICE], trades[r, T_PCT] = lots[j, ENTRY_PRICE], price, pct
    trades[r, T_STEPS], trades[r, T_STEP], trades[r, T_SIDE] = lots[j, STEPS], lots[j, STEP], head[SIDE]
    trades[r, T_FEE], trades[r, T_SLIPPAGE] = fees, slippages
    trades[r, T_GROSS], trades[r, T_NET] = gross, net
    trades[r, T_REASON], trades[r, T_AMBIGUOUS] = reason, 1.0 if ambiguous else 0.0
    n = np.int64(head[LOTS]) - 1
    for i in range(j, n):
        for c in range(LOT):
            lots[i, c] = lots[i + 1, c]
    head[LOTS] = n
    if n == 0:
        head[SIDE] = 0.0
    is_countable: bool = (
        out < LIMIT
        and abs(head[CASH]) < LIMIT
        and abs(head[SUM_WON]) < LIMIT
        and abs(head[SUM_LOST]) < LIMIT
        and abs(head[SUM_PCT]) < LIMIT
    )
    return is_countable


@compiled()
def risked_quantity(head: np.ndarray, knobs: np.ndarray, quote: float) -> float:
    """Return the quantity that loses the risked share of equity if an entry at the price `quote` is stopped out."""
    quantity: float = knobs[K_RISK] * (head[ORDER_EQUITY] / UNIT) / (knobs[K_STOP] * quote)
    return quantity


@compiled()
def whole_steps(quantity: float, step: float) -> tuple[float, float, float]:
    """Return (quantity, whole steps, step in units) of `quantity` rounded down to the step."""
    while quantity / (step / UNIT) >= TWO_53:  # float64 cannot count so many: a coarser power of ten
        step *= 10.0
    n = UNIT / step
    if np.floor(n) == n and n * step == UNIT:
        steps = np.floor(quantity * n)
        return steps / n, steps, step
    steps = np.floor(quantity / (step / UNIT))
    return steps * (step / UNIT), steps, step


@compiled()
def order_size(head: np.ndarray, knobs: np.ndarray, quote: float) -> tuple[float, float, float]:
    """Return (quantity, whole steps, step in units) of an entry at the price `quote`, rounded down to the step."""
    costs = 1.0 + knobs[K_FEE] + knobs[K_BPS] / 10000.0
    return whole_steps(min(risked_quantity(head, knobs, quote), head[CASH] / UNIT / (quote * costs)), knobs[K_STEP])


@compiled()
def count_unfilled(unfilled: np.ndarray, d: int, reason: int) -> None:
    """Count a signal of day `d` that led to no order; a sweep counts none and passes no rows."""
    if d < unfilled.shape[0]:
        unfilled[d, reason] += 1.0


@compiled()
def why_too_small(head: np.ndarray, knobs: np.ndarray, price: float, steps: float, notional: float) -> int:
    """Return why an entry is too small to order: no capital if the risked quantity alone would be large enough."""
    wanted = risked_quantity(head, knobs, price / UNIT)
    if wanted <= 0.0:
        return U_NO_CAPITAL
    quantity, whole, _ = whole_steps(wanted, knobs[K_STEP])
    worth = np.rint(quantity * (price / UNIT) * UNIT)
    if whole > 0.0 and worth > 0.0 and worth >= knobs[K_MIN_NOTIONAL]:
        return U_NO_CAPITAL
    if steps <= 0.0 or notional <= 0.0:
        return U_ROUNDED_TO_ZERO
    return U_BELOW_MIN_NOTIONAL


@compiled()
def open_lot(
    head: np.ndarray,
    lots: np.ndarray,
    side: float,
    price: float,
    time: float,
    knobs: np.ndarray,
    unfilled: np.ndarray,
    d: int,
) -> bool:
    """Buy (side 1) or sell short (-1) at `price`. An order below the minimum notional is only counted."""
    quantity, steps, step = order_size(head, knobs, price / UNIT)
    notional: float = np.rint(quantity * (price / UNIT) * UNIT)
    if steps <= 0.0 or notional <= 0.0 or notional < knobs[K_MIN_NOTIONAL]:
        head[SKIPPED] += 1.0
        count_unfilled(unfilled, d, why_too_small(head, knobs, price, steps, notional))
        return True
    n = np.int64(head[LOTS])
    lots[n, ENTRY_TIME], lots[n, ENTRY_SIGNAL] = time, head[ORDER_TIME]
    lots[n, ENTRY_PRICE], lots[n, NOTIONAL] = price, notional
    lots[n, QUANTITY], lots[n, STEPS], lots[n, STEP] = quantity, steps, step
    lots[n, ENTRY_FEE] = np.rint(notional / UNIT * knobs[K_FEE] * UNIT)
    lots[n, ENTRY_SLIPPAGE] = np.rint(notional / UNIT * knobs[K_BPS] / 10000.0 * UNIT)
    up = side < 0.0
    # Candles hold whole units, so touching the level is touching the first whole unit beyond it.
    lots[n, STOP] = level_units(price, knobs[K_STOP_PCT], -side, up)
    lots[n, STOP_FILL], lots[n, STOP_REASON] = on_tick(lots[n, STOP], knobs[K_TICK], up), STOP_LOSS
    if up and lots[n, STOP] > 2.0 * price:
        lots[n, STOP], lots[n, STOP_FILL] = 2.0 * price, on_tick(2.0 * price, knobs[K_TICK], up)
        lots[n, STOP_REASON] = COLLATERAL
    lots[n, TARGET] = lots[n, TARGET_FILL] = side * np.inf
    if knobs[K_TARGET_PCT] > 0.0:
        lots[n, TARGET] = level_units(price, knobs[K_TARGET_PCT], side, not up)
        lots[n, TARGET_FILL] = on_tick(level_units(price, knobs[K_TARGET_PCT], side, up), knobs[K_TICK], up)
    head[CASH] -= notional + lots[n, ENTRY_FEE] + lots[n, ENTRY_SLIPPAGE]
    head[LOTS], head[SIDE] = n + 1, side
    return notional < LIMIT


@compiled()
def along_minutes(
    lots: np.ndarray, j: int, side: float, time: float, end: float, high: float, low: float, minutes: np.ndarray
) -> tuple[float, float, bool, bool]:
    """Follow one candle's stored minutes to the first level of lot `j`: (price, time, stopped, ambiguous).

    The price is NaN if the minutes cannot decide: one is missing, their joint range is not that of the candle, or the
    candle is shorter than a minute. `minutes` has the rows open time, open, high, low.
    """
    count = np.int64((end - time) // 60000.0)
    first = np.searchsorted(minutes[0], time)
    nothing = (np.nan, np.nan, False, False)
    if first + count > minutes.shape[1] or count < 1:
        return nothing
    top, bottom = -np.inf, np.inf
    for i in range(count):
        if minutes[0, first + i] != time + 60000.0 * i:
            return nothing
        top, bottom = max(top, minutes[2, first + i]), min(bottom, minutes[3, first + i])
    if top != high or bottom != low:
        return nothing
    for i in range(first, first + count):
        at, begin = minutes[1, i], minutes[0, i]
        if (at - lots[j, STOP]) * side <= 0.0:
            return at, begin, True, False
        if (at - lots[j, TARGET]) * side >= 0.0:
            return at, begin, False, False
        adverse, favourable = (minutes[3, i], minutes[2, i]) if side > 0.0 else (minutes[2, i], minutes[3, i])
        stopped, reached = (adverse - lots[j, STOP]) * side <= 0.0, (favourable - lots[j, TARGET]) * side >= 0.0
        if stopped:
            return lots[j, STOP_FILL], begin + 59999.0, True, reached
        if reached:
            return lots[j, TARGET_FILL], begin + 59999.0, False, False
    return nothing


@compiled()
def leave_inside(
    head: np.ndarray,
    lots: np.ndarray,
    i: int,
    times: np.ndarray,
    ends: np.ndarray,
    open_: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    knobs: np.ndarray,
    minutes: np.ndarray,
    day: float,
    trades: np.ndarray,
    t: int,
) -> tuple[int, bool]:
    """Close the lots whose stop or target candle `i` reaches: first those its open has jumped, then those inside it."""
    ok, time, end = True, times[i], ends[i]
    j = 0
    while j < head[LOTS]:
        side = head[SIDE]
        stopped = (open_[i] - lots[j, STOP]) * side <= 0.0
        if stopped or (open_[i] - lots[j, TARGET]) * side >= 0.0:
            reason = lots[j, STOP_REASON] if stopped else TAKE_PROFIT
            ok = close_lot(head, lots, j, open_[i], time, reason, np.nan, False, knobs, day, trades, t) and ok
            t += 1
        else:
            j += 1
    j = 0
    while j < head[LOTS]:
        side = head[SIDE]
        adverse, favourable = (low[i], high[i]) if side > 0.0 else (high[i], low[i])
        stopped = (adverse - lots[j, STOP]) * side <= 0.0
        reached = (favourable - lots[j, TARGET]) * side >= 0.0
        if not (stopped or reached):
            j += 1
            continue
        price = lots[j, STOP_FILL] if stopped else lots[j, TARGET_FILL]
        when, ambiguous = end - 1.0, stopped and reached
        if knobs[K_MINUTES] > 0.0:
            along, then, first, unclear = along_minutes(lots, j, side, time, end, high[i], low[i], minutes)
            if not np.isnan(along):
                price, when, stopped, ambiguous = along, then, first, unclear
        reason = lots[j, STOP_REASON] if stopped else TAKE_PROFIT
        ok = close_lot(head, lots, j, price, when, reason, np.nan, ambiguous, knobs, day, trades, t) and ok
        t += 1
    return t, ok


@compiled()
def close_all(
    head: np.ndarray,
    lots: np.ndarray,
    price: float,
    time: float,
    reason: float,
    signal_time: float,
    knobs: np.ndarray,
    day: float,
    trades: np.ndarray,
    t: int,
) -> tuple[int, bool]:
    """Close every lot at the candle's open, oldest first."""
    ok = True
    while head[LOTS] > 0.0:
        ok = close_lot(head, lots, 0, price, time, reason, signal_time, False, knobs, day, trades, t) and ok
        t += 1
    return t, ok


@compiled()
def execute(
    head: np.ndarray,
    lots: np.ndarray,
    price: float,
    time: float,
    knobs: np.ndarray,
    day: float,
    trades: np.ndarray,
    t: int,
    unfilled: np.ndarray,
    d: int,
) -> tuple[int, bool]:
    """Fill the pending order at the candle's open: closes of the other side, then one entry."""
    ok, side, t0 = True, head[ORDER], t
    if head[SIDE] == -side:
        t, ok = close_all(head, lots, price, time, SIGNAL, head[ORDER_TIME], knobs, day, trades, t)
    if side < 0.0 and knobs[K_SHORTING] <= 0.0:
        if t == t0:
            count_unfilled(unfilled, d, U_SHORTING_OFF)
    elif head[LOTS] < knobs[K_MAX_LOTS]:
        ok = open_lot(head, lots, side, price, time, knobs, unfilled, d) and ok
    else:
        count_unfilled(unfilled, d, U_AT_MAX_OPEN_TRADES)
    return t, ok


@compiled()
def limits(head: np.ndarray, lots: np.ndarray) -> tuple[float, float, float, float]:
    """Return (low, high, close above, close below): a candle within them changes nothing while the lots stay.

    `low` and `high` are the nearest levels of any lot. Equity is linear in the close, so the closes that make a new
    peak or a deeper drawdown lie beyond two thresholds, and a candle between them need not be marked. The thresholds
    err on the safe side by `slack`, so the result is that of marking every candle.
    """
    low, high, fixed, slope = -np.inf, np.inf, head[CASH], 0.0
    n = np.int64(head[LOTS])
    if n == 0:
        return low, high, np.inf, -np.inf
    for j in range(n):
        if head[SIDE] > 0.0:
            low, high = max(low, lots[j, STOP]), min(high, lots[j, TARGET])
            slope += lots[j, QUANTITY]
        else:
            low, high = max(low, lots[j, TARGET]), min(high, lots[j, STOP])
            slope -= lots[j, QUANTITY]
            fixed += 2.0 * lots[j, NOTIONAL]
    slack = 16.0 + n + 1e-12 * (abs(fixed) + head[PEAK])
    best = (head[PEAK] - slack - fixed) / slope
    worst = (head[PEAK] * (1.0 + head[DRAWDOWN]) + slack - fixed) / slope
    return low, high, max(best, worst), min(best, worst)


@compiled()
def lead(
    times: np.ndarray,
    ends: np.ndarray,
    open_: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    signal: np.ndarray,
    events: np.ndarray,
    blocks: np.ndarray,
    first: np.ndarray,
    days: np.ndarray,
    as_of: float,
    until: float,
    head: np.ndarray,
    lots: np.ndarray,
    knobs: np.ndarray,
    minutes: np.ndarray,
    trades: np.ndarray,
    marks: np.ndarray,
    daily: np.ndarray,
    log: np.ndarray,
    unfilled: np.ndarray,
) -> tuple[int, int]:
    """Lead the account from its state (`head`, `lots`, changed in place) through whole days of candles.

    Only `walk` and `walk_many` call it; they lend it their arrays.

    times, ends          open and exclusive end of each candle, ms, float64, ascending
    open_ high low close prices in units, float64; signal int8
    events               indices of the candles whose signal is not 0, ascending; blocks: see block_ranges
    first                index of the first candle of each day, and the number of candles at the end
    days                 00:00 UTC of each day, ms; as_of: the clock at the end of the last one
    until                end of the version, ms; inf if it has none
    lots                 room for every lot that can be open; minutes: see along_minutes
    trades, marks        rows for closed trades and their snapshots, at least one: the last takes the rest
    daily, log           a snapshot and the carried state at the end of each day, or no rows at all
    unfilled             a row per day that counts signals without an order by reason, or no rows at all
    Returns (closed trades, index of the candle at which money passed LIMIT or -1).
    """
    t, e = 0, np.searchsorted(events, first[0])
    begin, limit = np.searchsorted(times, head[START]), np.searchsorted(times, until)
    down, up, above, below = limits(head, lots)
    for d in range(days.size):
        day, before, closed = days[d], head[EQUITY], t
        if day >= until and head[LOTS] == 0.0 and head[ORDER] == 0.0:
            head[ENDED] = 1.0
        i, stop = max(first[d], begin), first[d + 1]
        if d < unfilled.shape[0]:
            for early in range(first[d], min(i, stop)):
                if signal[early] != 0:
                    count_unfilled(unfilled, d, U_OUTSIDE_DATES)
        while i < stop and head[ENDED] == 0.0:
            if head[ORDER] == 0.0 and i < limit:  # the hot loops: skip candles at which nothing happens
                pause = min(stop, limit)
                while e < events.size and events[e] < i:
                    e += 1
                    if e + AHEAD < events.size:
                        n = events[e + AHEAD]
                        prefetch(times, n), prefetch(ends, n), prefetch(open_, n)
                        prefetch(high, n), prefetch(low, n), prefetch(close, n)
                if e < events.size:
                    pause = min(pause, events[e])
                if head[LOTS] == 0.0:
                    i = max(i, pause)
                while i < pause:
                    b = i // BLOCK
                    if i == b * BLOCK and i + BLOCK <= pause and b < blocks.shape[0]:
                        quiet = blocks[b, 0] > down and blocks[b, 1] < up
                        if quiet and blocks[b, 2] <= above and blocks[b, 3] >= below:
                            i += BLOCK
                            continue
                    if low[i] <= down or high[i] >= up or close[i] > above or close[i] < below:
                        break
                    i += 1
                if i == stop:
                    break
            t0, lots0, ok, inside = t, head[LOTS], True, True
            if i >= limit:
                t, ok = close_all(head, lots, open_[i], times[i], SUPERSEDED, np.nan, knobs, day, trades, t)
                if head[ORDER] != 0.0:
                    count_unfilled(unfilled, d, U_OUTSIDE_DATES)
                head[ORDER], head[ORDER_TIME], head[ORDER_EQUITY], head[ENDED] = 0.0, np.nan, np.nan, 1.0
            else:
                if head[ORDER] != 0.0:
                    t, ok = execute(head, lots, open_[i], times[i], knobs, day, trades, t, unfilled, d)
                    head[ORDER], head[ORDER_TIME], head[ORDER_EQUITY] = 0.0, np.nan, np.nan
                traded = t > t0 or head[LOTS] != lots0
                if head[LOTS] > 0.0 and (traded or low[i] <= down or high[i] >= up):
                    t, inside = leave_inside(
                        head, lots, i, times, ends, open_, high, low, knobs, minutes, day, trades, t
                    )
            traded = t > t0 or head[LOTS] != lots0
            if traded or lots0 > 0.0:
                ok = mark(head, account_equity(head, lots, close[i])) and ok and inside
                if not ok:
                    return t, i
                if traded or close[i] > above or close[i] < below:
                    down, up, above, below = limits(head, lots)
            if t > t0:
                change = daily_return(head[EQUITY], before)
                count, mean, m2 = add_return(head[RETURNS], head[MEAN], head[M2], change)
                for row in range(t0, t):
                    snapshot(head, lots, count, mean, m2, ends[i], marks, min(row, marks.shape[0] - 1))
            if head[ENDED] == 0.0 and signal[i] != 0:
                head[ORDER], head[ORDER_TIME], head[ORDER_EQUITY] = signal[i], times[i], head[EQUITY]
            elif signal[i] != 0:
                count_unfilled(unfilled, d, U_OUTSIDE_DATES)
            i += 1
        if d < unfilled.shape[0]:
            for late in range(i, stop):
                if signal[late] != 0:
                    count_unfilled(unfilled, d, U_OUTSIDE_DATES)
        if head[LOTS] > 0.0 and stop > first[d]:
            if not mark(head, account_equity(head, lots, close[stop - 1])):
                return t, stop - 1
            down, up, above, below = limits(head, lots)
        end = day + DAY_MS if d + 1 < days.size else as_of
        if end > day and (head[ENDED] == 0.0 or t > closed):
            change = daily_return(head[EQUITY], before)
            head[RETURNS], head[MEAN], head[M2] = add_return(head[RETURNS], head[MEAN], head[M2], change)
        if d < daily.shape[0]:
            snapshot(head, lots, head[RETURNS], head[MEAN], head[M2], end, daily, d)
        if d < log.shape[0]:
            log[d, :HEAD] = head
            for j in range(np.int64(head[LOTS])):
                log[d, HEAD + j * LOT : HEAD + (j + 1) * LOT] = lots[j]
    return t, -1


@compiled()
def block_ranges(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Return (lowest low, highest high, highest close, lowest close) of every whole block of BLOCK candles."""
    rows = np.empty((low.size // BLOCK, 4))
    for b in range(rows.shape[0]):
        i = b * BLOCK
        bottom, top, over, under = low[i], high[i], close[i], close[i]
        for j in range(i + 1, i + BLOCK):
            bottom, top = min(bottom, low[j]), max(top, high[j])
            over, under = max(over, close[j]), min(under, close[j])
        rows[b, 0], rows[b, 1], rows[b, 2], rows[b, 3] = bottom, top, over, under
    return rows


@compiled(nogil=True)
def decisions(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `signal` as int8, and the indices of the candles at which it is not 0."""
    count = 0
    small = np.empty(signal.size, np.int8)
    for i in range(signal.size):
        small[i] = signal[i]
        count += signal[i] != 0
    events = np.empty(count, np.int64)
    e = 0
    for i in range(signal.size):
        if small[i] != 0:
            events[e] = i
            e += 1
    return small, events


@compiled(nogil=True)
def walk(
    times: np.ndarray,
    ends: np.ndarray,
    open_: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    signal: np.ndarray,
    events: np.ndarray,
    blocks: np.ndarray,
    first: np.ndarray,
    days: np.ndarray,
    as_of: float,
    until: float,
    head: np.ndarray,
    lots: np.ndarray,
    knobs: np.ndarray,
    minutes: np.ndarray,
    trades: np.ndarray,
    marks: np.ndarray,
    daily: np.ndarray,
    log: np.ndarray,
    unfilled: np.ndarray,
) -> tuple[int, int]:
    """Run `lead` with one set of terms; see there for the arguments."""
    return lead(
        borrowed(times),
        borrowed(ends),
        borrowed(open_),
        borrowed(high),
        borrowed(low),
        borrowed(close),
        borrowed(signal),
        borrowed(events),
        borrowed(blocks),
        borrowed(first),
        borrowed(days),
        as_of,
        until,
        borrowed(head),
        borrowed(lots),
        borrowed(knobs),
        borrowed(minutes),
        borrowed(trades),
        borrowed(marks),
        borrowed(daily),
        borrowed(log),
        borrowed(unfilled),
    )


@compiled(nogil=True)
def walk_many(
    times: np.ndarray,
    ends: np.ndarray,
    open_: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    signal: np.ndarray,
    events: np.ndarray,
    blocks: np.ndarray,
    first: np.ndarray,
    days: np.ndarray,
    as_of: float,
    begin: np.ndarray,
    knobs: np.ndarray,
    parts: np.ndarray,
    minutes: np.ndarray,
    out: np.ndarray,
) -> int:
    """Run `lead` once for every set of terms over the same candles and signals, for a parameter sweep.

    begin   the head of the state with which each account starts, flat
    knobs   (parts, sets, KNOBS): the terms of each set in each part of the days; parts: index of the first
            day of each part, and the number of days at the end
    out     (sets, SNAPSHOT): the inputs of the metrics at the end of the last day
    Returns the first set whose money passed LIMIT, or -1.
    """
    most = 1
    for c in range(knobs.shape[1]):
        most = max(most, min(int(knobs[0, c, K_MAX_LOTS]), events.size + 1))
    head, lots = np.empty(HEAD), np.empty((most, LOT))
    trades, marks = np.empty((1, TRADE)), np.empty((1, SNAPSHOT))
    none, uncounted = np.empty((0, SNAPSHOT)), np.empty((0, UNFILLED))
    for c in range(knobs.shape[1]):
        head[:] = begin
        for p in range(parts.size - 1):
            a, b = parts[p], parts[p + 1]
            _, broken = lead(
                borrowed(times),
                borrowed(ends),
                borrowed(open_),
                borrowed(high),
                borrowed(low),
                borrowed(close),
                borrowed(signal),
                borrowed(events),
                borrowed(blocks),
                first[a : b + 1],
                days[a:b],
                as_of if b == days.size else days[b - 1] + DAY_MS,
                np.inf,
                borrowed(head),
                borrowed(lots),
                knobs[p, c],
                borrowed(minutes),
                borrowed(trades),
                borrowed(marks),
                none,
                none,
                uncounted,
            )
            if broken >= 0:
                return c
        snapshot(head, lots, head[RETURNS], head[MEAN], head[M2], as_of, out, c)
    return -1
