"use strict";
// Draws the charts of a page from the data embedded in it: which candles fit the view, the theme's colours, zoom, and
// rows that open. Figures are computed before.
(() => {
  const DAY = 86400000;
  const MOST_CANDLES = 1500, MOST_TRADES = 400, MOST_LINKS = 150;
  const byId = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const narrow = () => window.innerWidth < 640;
  const charts = [];

  async function unpack(id) {
    const bytes = Uint8Array.from(atob(byId(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  // --- one look for all charts ---------------------------------------------------------------------------
  function axis(more) {
    return Object.assign({
      gridcolor: colour("grid"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true,
      tickfont: { color: colour("soft"), size: 11 }, title: { font: { color: colour("soft"), size: 11 } },
    }, more);
  }
  function layout(more) {
    return Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 52, r: 14, t: 10, b: 34 },
      font: { color: colour("text"), family: "system-ui, sans-serif", size: 12 },
      hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line"), font: { color: colour("text") } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 }, bgcolor: "rgba(0,0,0,0)" },
      dragmode: narrow() ? false : "zoom",
    }, more);
  }
  const config = { responsive: true, displaylogo: false, displayModeBar: false, doubleClickDelay: 400 };
  function chart(id, draw) {
    const place = byId(id);
    if (!place) return;
    charts.push(() => draw(place));
    draw(place);
  }
  const line = (name, x, y, tone, more) =>
    Object.assign({ type: "scatter", mode: "lines", name, x, y, line: { color: colour(tone), width: 1.4 } }, more);

  // --- equity and drawdown -------------------------------------------------------------------------------
  function equity(data) {
    const e = data.equity;
    chart("chart-equity", (place) => Plotly.react(place, [
      line(data.name, e.day, e.equity, "accent", { hovertemplate: "%{y:,.2f}" }),
      line("buy and hold", e.day, e.hold, "hold", { line: { color: colour("hold"), width: 1.1, dash: "dot" }, hovertemplate: "%{y:,.2f}" }),
      line("drawdown", e.day, e.drawdown, "down", { yaxis: "y2", fill: "tozeroy", showlegend: false, hovertemplate: "%{y:.2%}" }),
    ], layout({
      hovermode: "x unified",
      xaxis: axis({ type: "date", anchor: "y2" }),
      yaxis: axis({ domain: [0.36, 1], title: { text: data.quote, font: { size: 11 } }, tickformat: "~s", fixedrange: true }),
      yaxis2: axis({ domain: [0, 0.28], tickformat: ".0%", fixedrange: true, title: { text: "drawdown", font: { size: 11 } } }),
    }), config));
  }

  // --- candles -------------------------------------------------------------------------------------------
  function candles(data) {
    const place = byId("chart-candles");
    if (!place || !data.levels.length) return;
    const finest = data.levels[data.levels.length - 1];
    const first = data.levels[0].t[0], length = data.candle_ms;
    const end = finest.t[finest.t.length - 1] + length, t = data.trades;
    const begin = Math.min(first, finest.t[0]);
    let view = opening();

    function opening() {
      let lo = end - 200 * length;
      if (t.entry.length) lo = Math.min(lo, t.entry[Math.max(0, t.entry.length - 12)] - 20 * length);
      return [Math.max(begin, lo), end];
    }
    function span(level, lo, hi) { // candles of the level that begin in the view, one more before
      const at = (x) => { let a = 0, b = level.t.length; while (a < b) { const m = (a + b) >> 1; level.t[m] < x ? a = m + 1 : b = m; } return a; };
      return [Math.max(0, at(lo) - 1), at(hi)];
    }
    function pick(lo, hi) {
      for (let i = data.levels.length - 1; i >= 0; i--) {
        const level = data.levels[i], [a, b] = span(level, lo, hi);
        if (b - a <= MOST_CANDLES && (level.whole || level.t[0] <= Math.max(lo, begin))) return [level, a, b];
      }
      const level = data.levels.find((each) => each.whole) || finest;
      return [level, ...span(level, lo, hi)];
    }
    function marks(lo, hi) {
      const inside = [];
      for (let i = t.entry.length - 1; i >= 0; i--) if (t.exit[i] >= lo && t.entry[i] <= hi) inside.push(i);
      return [inside.slice(0, MOST_TRADES).reverse(), inside.length];
    }
    function draw() {
      const [lo, hi] = view, [level, a, b] = pick(lo, hi), [shown, all] = marks(lo, hi);
      const x = level.t.slice(a, b), cut = (key) => level[key].slice(a, b);
      const o = cut("o"), h = cut("h"), l = cut("l"), c = cut("c"), up = colour("up"), down = colour("down");
      let low = Infinity, high = -Infinity;
      for (let i = 0; i < x.length; i++) { if (l[i] < low) low = l[i]; if (h[i] > high) high = h[i]; }
      const room = (high - low || high || 1) * 0.06;
      const told = (i) => `trade ${t.id[i]} ${t.side[i]}<br>${t.pct[i].toFixed(2)} % · ${t.reason[i]}`;
      const point = (name, which, price, symbol, tone) => {
        const some = shown.filter(which);
        return { type: "scatter", mode: "markers", name, x: some.map((i) => t[price[0]][i]), y: some.map((i) => t[price[1]][i]),
          text: some.map(told), hovertemplate: "%{text}<br>%{y}<extra>" + name + "</extra>",
          marker: { symbol, size: 10, color: colour(tone), line: { color: colour("ground"), width: 1 } } };
      };
      const links = { x: [], y: [] };
      if (shown.length <= MOST_LINKS) for (const i of shown) { links.x.push(t.entry[i], t.exit[i], null); links.y.push(t.entry_price[i], t.exit_price[i], null); }
      const traces = [
        { type: "candlestick", name: "candles", x, open: o, high: h, low: l, close: c, showlegend: false, whiskerwidth: 0,
          increasing: { line: { color: up, width: 1 }, fillcolor: up }, decreasing: { line: { color: down, width: 1 }, fillcolor: down } },
        line("EMA", x, cut("ema"), "hold", { hoverinfo: "skip" }), line("VWAP", x, cut("vwap"), "third", { hoverinfo: "skip", line: { color: colour("third"), width: 1, dash: "dot" } }),
        line("held", links.x, links.y, "soft", { hoverinfo: "skip", showlegend: false, line: { color: colour("soft"), width: 1, dash: "dot" } }),
        point("long entry", (i) => t.side[i] === "long", ["entry", "entry_price"], "triangle-up", "accent"),
        point("short entry", (i) => t.side[i] !== "long", ["entry", "entry_price"], "triangle-down", "third"),
        point("exit, won", (i) => t.pct[i] > 0, ["exit", "exit_price"], "circle", "up"),
        point("exit, lost", (i) => t.pct[i] <= 0, ["exit", "exit_price"], "x", "down"),
        line("RSI", x, cut("rsi"), "accent", { yaxis: "y2", showlegend: false, hovertemplate: "RSI %{y:.1f}<extra></extra>" }),
        line("ATR", x, cut("atr"), "hold", { yaxis: "y3", showlegend: false, hovertemplate: "ATR %{y:.6~g}<extra></extra>" }),
      ].filter((trace) => trace.type !== "scatter" || trace.x.length);
      const dashed = (y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y2", y0: y, y1: y, line: { color: colour("line"), dash: "dot", width: 1 } });
      Plotly.react(place, traces, layout({
        hovermode: "closest", shapes: [dashed(30), dashed(70)],
        xaxis: axis({ type: "date", range: [lo, hi], rangeslider: { visible: false }, anchor: "y3" }),
        yaxis: axis({ domain: [0.42, 1], range: [low - room, high + room], fixedrange: true }),
        yaxis2: axis({ domain: [0.22, 0.36], range: [0, 100], tickvals: [30, 70], fixedrange: true, title: { text: "RSI", font: { size: 11 } } }),
        yaxis3: axis({ domain: [0, 0.16], fixedrange: true, rangemode: "tozero", nticks: 4, title: { text: "ATR", font: { size: 11 } } }),
      }), config);
      place.dataset.level = level.interval;
      place.dataset.candles = x.length;
      const stored = `candles of ${data.interval}`;
      byId("drawn").textContent = (level.exact ? `Shown: ${x.length} ${stored}, as stored.` :
        `Shown: ${x.length} candles of ${level.interval}, resampled from the ${stored}; zoom in for finer ones.`) +
        (all > shown.length ? ` Of ${all} trades in view the newest ${shown.length} are marked.` : "");
      for (const button of document.querySelectorAll("[data-span]")) {
        const days = Number(button.dataset.span), width = days ? days * DAY : end - begin;
        button.setAttribute("aria-pressed", String(Math.abs(hi - lo - width) < 1000));
      }
    }
    function look(lo, hi) { // a view inside the period, ten candles wide at least
      const width = Math.min(Math.max(hi - lo, 10 * length), end - begin);
      lo = Math.min(Math.max(begin, (lo + hi - width) / 2), end - width);
      view = [lo, lo + width];
      draw();
    }
    charts.push(draw);
    draw();
    place.on("plotly_relayout", (change) => {
      if (change["xaxis.autorange"]) return look(begin, end);
      const lo = change["xaxis.range[0]"], hi = change["xaxis.range[1]"];
      if (lo === undefined) return undefined;
      const ms = (v) => typeof v === "number" ? v : Date.parse(v.replace(" ", "T") + (v.length > 10 ? "Z" : ""));
      return look(ms(lo), ms(hi));
    });
    document.querySelector("#candles .tools").addEventListener("click", ({ target }) => {
      const { span: days, move, zoom } = target.dataset, [lo, hi] = view, middle = (lo + hi) / 2, half = (hi - lo) / 2;
      if (days !== undefined) Number(days) ? look(hi - days * DAY, hi) : look(begin, end);
      if (move) look(lo + move * half, hi + move * half);
      if (zoom) look(middle - half * zoom, middle + half * zoom);
    });
    document.addEventListener("click", ({ target }) => {
      if (!target.dataset.show) return;
      const row = byId("trade-" + target.dataset.show).dataset, lo = Number(row.entry), hi = Number(row.exit);
      const beside = Math.max((hi - lo) / 2, 30 * length);
      look(lo - beside, hi + beside);
      byId("candles").scrollIntoView();
    });
  }

  // --- months, rolling Sharpe, trades --------------------------------------------------------------------
  function months(data) {
    const m = data.months, names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Year"];
    const most = Math.max(0.01, ...m.grid.flat().filter((v) => v !== null).map(Math.abs));
    chart("chart-months", (place) => {
      const small = place.clientWidth < 560, digits = small ? 0 : 1;
      Plotly.react(place, [{
        type: "heatmap", x: small ? names.map((n, i) => i === 12 ? "Σ" : n[0] + "\u200b".repeat(i)) : names, y: m.years, z: m.grid,
        customdata: m.years.map(() => names), zmin: -most, zmax: most, showscale: false, xgap: 2, ygap: 2,
        colorscale: [[0, colour("down")], [0.5, colour("middle")], [1, colour("up")]], hoverongaps: false,
        text: m.grid.map((row) => row.map((v) => v === null ? "" : (100 * v).toFixed(digits).replace(/^-(0(?:\.0)?)$/, "$1"))), texttemplate: "%{text}",
        textfont: { size: small ? 9 : 11, color: colour("text") }, hovertemplate: "%{customdata} %{y}: %{z:.2%}<extra></extra>",
      }], layout({
        margin: { l: 42, r: 6, t: 24, b: 6 },
        xaxis: axis({ side: "top", type: "category", fixedrange: true, showgrid: false, ticks: "" }),
        yaxis: axis({ type: "category", autorange: "reversed", fixedrange: true, showgrid: false, ticks: "" }),
      }), config);
    });
  }
  function sharpe(data) {
    chart("chart-sharpe", (place) => {
      const some = data.equity.sharpe.some((v) => v !== null);
      Plotly.react(place, [line("Sharpe", data.equity.day, data.equity.sharpe, "accent", { hovertemplate: "%{x}: %{y:.2f}<extra></extra>" })], layout({
        xaxis: axis({ type: "date", fixedrange: true }), yaxis: axis({ fixedrange: true, zeroline: true, zerolinewidth: 1.5 }),
        annotations: some ? [] : [{ text: "not enough days yet", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: colour("soft") } }],
      }), config);
    });
  }
  function spread(data) {
    const t = data.trades, won = [], lost = [];
    for (const value of t.pct) (value > 0 ? won : lost).push(value);
    const nearest = [0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10].find((s) => (Math.max(...t.pct) - Math.min(...t.pct)) / s <= 60) || 20;
    const bars = (name, x, tone, size) => ({ type: "histogram", name, x, xbins: { size, start: Math.floor(Math.min(...x, 0) / size) * size, end: Math.max(...x, 0) + size }, marker: { color: colour(tone) }, hovertemplate: "%{x} %: %{y} trades<extra></extra>" });
    chart("chart-profits", (place) => Plotly.react(place,
      [bars("lost", lost, "down", nearest), bars("won", won, "up", nearest)].filter((b) => b.x.length),
      layout({ barmode: "overlay", bargap: 0.05, xaxis: axis({ ticksuffix: " %", fixedrange: true }), yaxis: axis({ fixedrange: true, title: { text: "trades", font: { size: 11 } } }) }), config));
    chart("chart-durations", (place) => Plotly.react(place,
      [{ type: "histogram", x: t.hours, nbinsx: 40, marker: { color: colour("accent") }, hovertemplate: "%{x} hours: %{y} trades<extra></extra>" }],
      layout({ bargap: 0.05, xaxis: axis({ ticksuffix: " h", fixedrange: true }), yaxis: axis({ fixedrange: true, title: { text: "trades", font: { size: 11 } } }) }), config));
  }

  // --- the comparison page -------------------------------------------------------------------------------
  function overlay(data) {
    const tones = ["#2f7ed8", "#e0822d", "#2ca58d", "#c94f7c", "#8a63d2", "#7f8c3b", "#3ba7c9", "#b5553a"];
    chart("chart-overlay", (place) => Plotly.react(place, data.lines.map((each, i) => ({
      type: "scatter", mode: "lines", name: each.name, x: each.day, y: each.value, hovertemplate: "%{y:.1f}",
      line: each.hold ? { color: tones[each.beside % tones.length], width: 1, dash: "dot" } : { color: tones[i % tones.length], width: 1.8 },
      opacity: each.hold ? 0.75 : 1,
    })), layout({ hovermode: "x unified", xaxis: axis({ type: "date" }), yaxis: axis({ fixedrange: true }) }), config));
  }

  // --- tables --------------------------------------------------------------------------------------------
  document.addEventListener("click", ({ target }) => {
    const id = target.dataset && target.dataset.why;
    if (!id) return;
    const row = byId("why-" + id);
    row.hidden = !row.hidden;
    target.setAttribute("aria-expanded", String(!row.hidden));
  });
  const linked = /^#trade-(\d+)$/.exec(location.hash);
  if (linked && byId("why-" + linked[1])) byId("why-" + linked[1]).hidden = false;
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const sort = () => {
      const row = head.parentNode, index = [...row.children].indexOf(head), body = head.closest("table").tBodies[0];
      const falling = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
      for (const other of row.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = (line) => { const cell = line.children[index]; return cell.dataset.value === undefined ? cell.textContent : cell.dataset.value === "" ? -Infinity : Number(cell.dataset.value); };
      const sorted = [...body.rows].sort((p, q) => { const a = key(p), b = key(q); return (a < b ? -1 : a > b ? 1 : 0) * (falling ? -1 : 1); });
      body.append(...sorted);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  }

  function redraw() { for (const draw of charts) draw(); }
  async function start() {
    const script = document.createElement("script");
    script.textContent = await unpack("library");
    document.head.append(script);
    const data = JSON.parse(await unpack("data"));
    if (data.kind === "strategies") overlay(data);
    if (data.kind === "strategy") { equity(data); candles(data); months(data); sharpe(data); if (data.trades.id.length) spread(data); }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    addEventListener("beforeprint", () => { document.documentElement.dataset.light = ""; redraw(); });
    addEventListener("afterprint", () => { delete document.documentElement.dataset.light; redraw(); });
    document.documentElement.dataset.drawn = "";
  }
  if (byId("library")) start().catch((error) => {
    for (const place of document.querySelectorAll(".chart")) place.textContent = "This browser cannot draw the charts (it must be of 2023 or newer); all figures are in the tables.";
    console.error(error);
  });
})();
