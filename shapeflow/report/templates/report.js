"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "sendDataToCloud"], topojsonURL: "", displayModeBar: matchMedia("(hover: none)").matches ? false : "hover" };
  const font = { family: "system-ui, sans-serif", size: 12, color: "#1b2733" };
  const base = { font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 55, r: 15, t: 12, b: 45 }, hovermode: "closest", modebar: { bgcolor: "rgba(255,255,255,0.8)", color: "#8795a1", activecolor: "#0b5cad" } };
  const grid = { gridcolor: "#e6ebf0", zerolinecolor: "#cfd7de", automargin: true, exponentformat: "power", minexponent: 5 };
  const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" };
  const spoken = (s) => s.replaceAll("_", " ");
  const diverging = [[0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#f2f2f2"], [0.75, "#f4a582"], [1, "#b2182b"]];
  // past the palette its colours come again, paler
  const paler = (hex) => `#${[1, 3, 5].map((at) => Math.round((parseInt(hex.slice(at, at + 2), 16) + 255) / 2).toString(16).padStart(2, "0")).join("")}`;
  const colour = (i) => (i < data.palette.length ? data.palette[i] : paler(data.palette[i % data.palette.length]));
  // Plotly reads a little HTML in texts: a subject's name must stay a name
  const safe = (s) => String(s).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const number = (v) => (v === null || v === undefined ? "" : Number(v).toPrecision(4).replace(/\.?0+$/, ""));
  const webgl = ["webgl2", "webgl"].some((kind) => document.createElement("canvas").getContext(kind));
  const state = { run: 0, label: null, mode: 0, step: 0, embedding: 0, field: -1, curve: null, order: "cluster" };

  // ---- meshes ---------------------------------------------------------------------------------------------------------------------------
  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out.buffer;
  }
  function unpack(scene, text) {
    const q = new Uint16Array(bytes(text)), d = scene.d, n = q.length / d;
    const axes = [];
    for (let a = 0; a < d; a++) {
      const x = new Float64Array(n);
      for (let i = 0; i < n; i++) x[i] = scene.low[a] + (q[i * d + a] / 65535) * scene.scale;
      axes.push(x);
    }
    return axes;
  }
  function opened(scene) {
    if (scene.ready) return scene.ready;
    const cells = new Uint32Array(bytes(scene.cells)), k = scene.k, columns = [];
    for (let c = 0; c < k; c++) columns.push(Array.from({ length: cells.length / k }, (_, i) => cells[i * k + c]));
    scene.ready = {
      base: unpack(scene, scene.points), columns,
      modes: scene.modes.map((m) => m.frames.map((f) => unpack(scene, f))),
      fields: scene.fields.map((f) => Array.from(new Float32Array(bytes(f.values)))),
    };
    return scene.ready;
  }
  function positions(scene) {
    const ready = opened(scene);
    if (!scene.modes.length) return ready.base;
    const steps = scene.modes[state.mode].steps, frames = ready.modes[state.mode];
    let i = 0;
    while (i < steps.length - 2 && state.step > steps[i + 1]) i++;
    const t = Math.min(1, Math.max(0, (state.step - steps[i]) / (steps[i + 1] - steps[i])));
    return frames[i].map((x, a) => x.map((v, j) => v + t * (frames[i + 1][a][j] - v)));
  }
  function lamp(scene) { // over the viewer's left shoulder
    const at = (a) => (scene.camera ? 1e5 * (-0.6 * scene.camera[0][a] + 0.9 * scene.camera[1][a] + 0.9 * scene.camera[2][a]) : 1e5);
    return { x: at(0), y: at(1), z: at(2) };
  }
  // one colour up to each level, darkest first, and grey above the last
  function stepped(levels) {
    const end = 1.5 * levels.at(-1), colours = ["#7f2704", "#e6550d", "#fdbe85"].slice(-levels.length), edges = [0, ...levels, end];
    return { cmin: 0, cmax: end, colorscale: [...colours, "#d5dae0"].flatMap((c, i) => [[edges[i] / end, c], [edges[i + 1] / end, c]]) };
  }
  function traced(scene, x) {
    const { columns, fields } = opened(scene), flat = scene.d === 2;
    if (scene.k === 3) {
      const trace = {
        type: "mesh3d", x: x[0], y: x[1], z: flat ? x[0].map(() => 0) : x[2], i: columns[0], j: columns[1], k: columns[2], hoverinfo: "skip",
        flatshading: false, lighting: { ambient: 0.42, diffuse: 0.72, specular: 0.1, roughness: 0.7, fresnel: 0.05, vertexnormalsepsilon: 1e-30, facenormalsepsilon: 1e-30 },
        lightposition: lamp(scene), color: "#c3cfda",
      };
      const f = scene.fields[state.field], v = f ? fields[state.field] : x[0].map(() => 0);
      if (!f) Object.assign(trace, { colorscale: [[0, trace.color], [1, trace.color]], cmin: 0, cmax: 1, showscale: false }); // an absent intensity would leave the last one's colours
      else {
        const sorted = v.map(Math.abs).sort((a, b) => a - b);
        // a few extreme vertices must not fade all others: the scale ends at the 98 % quantile
        const top = Math.max(sorted[Math.floor(0.98 * (sorted.length - 1))], 1e-30);
        Object.assign(trace, f.levels.length ? stepped(f.levels) : { colorscale: f.diverging ? diverging : "Viridis", cmin: f.diverging ? -top : Math.min(...v), cmax: f.diverging ? top : Math.max(...v) });
        trace.colorbar = { thickness: 10, len: 0.7, title: { text: safe(f.unit), side: "right" }, tickvals: f.levels.length ? [0, ...f.levels] : undefined, exponentformat: "power" };
      }
      trace.intensity = v;
      return trace;
    }
    const lines = x.map(() => []);
    if (scene.k === 2) columns[0].forEach((a, e) => lines.forEach((l, c) => l.push(x[c][a], x[c][columns[1][e]], null)));
    else lines.forEach((l, c) => l.push(...x[c]));
    const mode = scene.k === 2 ? "lines" : "markers";
    const style = { mode, hoverinfo: "skip", line: { width: flat ? 2.5 : 5, color: "#31587a" }, marker: { size: 3, color: "#31587a" } };
    return flat ? { type: "scatter", x: lines[0], y: lines[1], ...style } : { type: "scatter3d", x: lines[0], y: lines[1], z: lines[2], ...style };
  }
  function bounds(scene) {
    const all = [opened(scene).base, ...opened(scene).modes.flat()];
    return Array.from({ length: scene.d }, (_, a) => {
      let lo = Infinity, hi = -Infinity;
      for (const x of all) for (const v of x[a]) { if (v < lo) lo = v; if (v > hi) hi = v; }
      return [lo, hi];
    });
  }
  function drawScene() {
    const scene = data.runs[state.run].scene;
    $("scene-panel").hidden = !scene;
    if (!scene) return;
    const still = scene.d === 3 && !webgl;
    $("scene").hidden = still;
    $("scene-still").hidden = !still;
    if (still) {
      $("scene-still").src = document.querySelectorAll("article.run")[state.run].querySelector("img.still").src;
      $("scene-note").textContent = "A still picture: this browser draws no WebGL.";
      return;
    }
    const trace = traced(scene, positions(scene)), box = bounds(scene), layout = { ...base, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false };
    if (scene.d === 2) {
      Object.assign(layout, { margin: { l: 30, r: 10, t: 5, b: 25 }, xaxis: { ...grid, range: box[0], scaleanchor: "y" }, yaxis: { ...grid, range: box[1] } });
    } else {
      const size = box.map(([a, b]) => Math.max(b - a, 1e-9)), top = Math.max(...size), none = { visible: false, showspikes: false };
      // perspective: plotly.js lights no mesh in an orthographic view
      const [, up, eye] = scene.camera, axis = (v) => ({ x: v[0], y: v[1], z: v[2] });
      const camera = $("scene").layout?.scene?.camera ?? { eye: axis(eye.map((v) => 1.45 * v)), up: axis(up), center: { x: 0, y: 0, z: 0 } }; // as it was turned
      layout.scene = {
        camera, aspectmode: "manual", aspectratio: axis(size.map((s) => (1.25 * s) / top)), dragmode: "orbit",
        xaxis: { ...none, range: box[0] }, yaxis: { ...none, range: box[1] }, zaxis: { ...none, range: box[2] },
      };
    }
    Plotly.react($("scene"), [trace], layout, config);
    $("scene-note").textContent = (scene.decimated ? `Decimated for this page; the run's template has ${scene.vertices} vertices. ` : `${scene.vertices} vertices. `) + (scene.d === 3 ? "Drag to turn, scroll to zoom." : "");
  }
  function moveScene() {
    const scene = data.runs[state.run].scene;
    if (!scene || !scene.modes.length || $("scene").hidden) return;
    const t = traced(scene, positions(scene));
    Plotly.restyle($("scene"), scene.d === 2 ? { x: [t.x], y: [t.y] } : { x: [t.x], y: [t.y], z: [t.z] }, [0]);
    const size = Math.abs(state.step).toFixed(1);
    $("step-value").textContent = `${size === "0.0" ? "" : state.step > 0 ? "+" : "−"}${size} ${scene.modes[state.mode].unit}`;
  }

  // ---- motion: one loop for the spin and the animation, only while the panel is on the screen ---------------------------------------------
  const motion = { spin: false, play: false, seen: false, angle: 0, phase: 0, last: 0, busy: false };
  function turned(v, axis, angle) { // Rodrigues
    const c = Math.cos(angle), s = Math.sin(angle), dot = v.x * axis.x + v.y * axis.y + v.z * axis.z;
    return {
      x: v.x * c + (axis.y * v.z - axis.z * v.y) * s + axis.x * dot * (1 - c),
      y: v.y * c + (axis.z * v.x - axis.x * v.z) * s + axis.y * dot * (1 - c),
      z: v.z * c + (axis.x * v.y - axis.y * v.x) * s + axis.z * dot * (1 - c),
    };
  }
  async function tick(now) {
    if (!(motion.seen && (motion.spin || motion.play))) { motion.last = 0; return; }
    const dt = motion.last ? Math.min(0.1, (now - motion.last) / 1000) : 0;
    if (!motion.busy && (dt === 0 || now - motion.last > 40)) {
      motion.last = now;
      motion.busy = true;
      const scene = data.runs[state.run].scene;
      if (motion.play && scene.modes.length) {
        motion.phase += dt * 1.6;
        const steps = scene.modes[state.mode].steps, lo = steps[0], hi = steps[steps.length - 1];
        state.step = (lo + hi) / 2 + ((hi - lo) / 2) * Math.sin(motion.phase);
        $("step").value = state.step;
        moveScene();
      }
      if (motion.spin && scene.d === 3) {
        const current = $("scene").layout.scene.camera;
        await Plotly.relayout($("scene"), { "scene.camera": { ...current, eye: turned(current.eye, current.up, dt * 0.5) } });
      }
      motion.busy = false;
    }
    requestAnimationFrame(tick);
  }
  function move(what, on) {
    motion[what] = on;
    $(what).setAttribute("aria-pressed", String(on));
    motion.last = 0;
    requestAnimationFrame(tick);
  }

  // ---- labels -----------------------------------------------------------------------------------------------------------------------------
  const column = (run) => (state.label && run.labels.columns[state.label] ? run.labels.columns[state.label] : null);
  function labelOf(run, name) {
    const c = column(run), i = run.labels.subjects.indexOf(name);
    return c && i >= 0 ? c.values[i] : null;
  }
  function groupsOf(run) {
    const c = column(run);
    return c && !c.numeric ? [...new Set(c.values.filter((v) => v !== null))].sort() : [];
  }
  const MOST_GROUPS = 16; // more colours and signs than that cannot be told apart
  function colourable(run, name) {
    const c = run.labels.columns[name], count = new Set(c.values.filter((v) => v !== null)).size;
    return c.numeric ? count > 1 : count > 1 && count <= MOST_GROUPS;
  }
  const symbols = ["circle", "diamond", "square", "cross", "triangle-up", "star", "x", "hexagon"];
  const sign = (k) => ({ color: colour(k), symbol: symbols[(k + Math.floor(k / symbols.length)) % symbols.length] });

  // ---- distances --------------------------------------------------------------------------------------------------------------------------
  function matrixPlot(run) {
    const m = run.matrix, groups = groupsOf(run), n = m.names.length;
    const rank = (i) => { const g = groups.indexOf(labelOf(run, m.names[i])); return g < 0 ? groups.length : g; };
    let order = state.order === "name" ? m.names.map((_, i) => i) : [...m.order];
    if (state.order === "label") order = order.map((i, p) => [i, p]).sort((a, b) => rank(a[0]) - rank(b[0]) || a[1] - b[1]).map(([i]) => i);
    m.steps ??= new Uint16Array(bytes(m.values));
    const distance = (i, j) => { const q = m.steps[i * n + j]; return q === 65535 ? null : (q / 65534) * m.largest; };
    const names = order.map((i) => safe(m.names[i])), z = order.map((i) => order.map((j) => distance(i, j)));
    const called = order.map((i) => safe(m.names[i]) + (groups.length ? ` (${safe(labelOf(run, m.names[i]) ?? "no label")})` : ""));
    const small = n <= 40, axis = { type: "category", showticklabels: small, ticks: "", showgrid: false, zeroline: false, tickfont: { size: n > 20 ? 9 : 11 }, automargin: true };
    // with groups, a strip in their colours runs along the map's left and upper side, inside the axes: names stay outside
    const gap = groups.length ? Math.max(0.6, n / 22) : 0, range = [-0.5 - 1.4 * gap, n - 0.5], shapes = [];
    for (let from = 0; groups.length && from < n; ) {
      let to = from;
      while (to + 1 < n && rank(order[to + 1]) === rank(order[from])) to++;
      const fill = { type: "rect", fillcolor: rank(order[from]) < groups.length ? colour(rank(order[from])) : "#e6ebf0", line: { width: 0 } };
      shapes.push({ ...fill, x0: -0.5 - 1.3 * gap, x1: -0.5 - 0.3 * gap, y0: from - 0.5, y1: to + 0.5 }, { ...fill, y0: -0.5 - 1.3 * gap, y1: -0.5 - 0.3 * gap, x0: from - 0.5, x1: to + 0.5 });
      from = to + 1;
    }
    return {
      traces: [
        { type: "heatmap", z, x: names, y: names, hovertemplate: "%{y} – %{x}<br>%{z:.4g}<extra></extra>", ...(n <= 200 && { customdata: called.map((a) => called.map((b) => `${a} – ${b}`)), hovertemplate: "%{customdata}<br>%{z:.4g}<extra></extra>" }), colorscale: "Viridis", reversescale: true, colorbar: { thickness: 10, title: { text: "distance √(2H)", side: "right" } }, hoverongaps: false },
        ...groups.map((g, k) => ({ type: "scatter", mode: "markers", x: [null], y: [null], name: safe(g), marker: { symbol: "square", size: 10, color: colour(k) }, hoverinfo: "skip" })),
      ],
      layout: { ...base, margin: { l: 10, r: 10, t: groups.length ? 30 : 8, b: 10 }, showlegend: groups.length > 0, legend, shapes, xaxis: { ...axis, range, constrain: "domain" }, yaxis: { ...axis, range: [range[1], range[0]], scaleanchor: "x", constrain: "domain" } },
    };
  }

  // ---- embedding --------------------------------------------------------------------------------------------------------------------------
  function embeddingPlot(run, e) {
    const c = column(run), groups = groupsOf(run), traces = [], all = e.names.map((_, i) => i);
    const tip = (i) => [`<b>${safe(e.names[i])}</b>`, ...Object.entries(run.labels.columns).map(([k, col]) => `${safe(k)}: ${safe(col.values[run.labels.subjects.indexOf(e.names[i])] ?? "")}`)].join("<br>");
    const add = (name, rows, marker) => traces.push({
      type: "scatter", mode: e.names.length <= 16 ? "markers+text" : "markers", name: safe(name), x: rows.map((i) => e.xy[i][0]), y: rows.map((i) => e.xy[i][1]), text: rows.map((i) => safe(e.names[i])),
      textposition: "top center", textfont: { size: 10, color: "#5b6b7a" }, cliponaxis: false, hovertext: rows.map(tip), hoverinfo: "text", marker: { size: 10, line: { width: 1, color: "#fff" }, ...marker },
    });
    if (c && c.numeric) {
      const known = all.filter((i) => labelOf(run, e.names[i]) !== null);
      add(state.label, known, { color: known.map((i) => labelOf(run, e.names[i])), colorscale: "Viridis", showscale: true, colorbar: { thickness: 10, title: { text: safe(state.label), side: "right" } } });
    } else {
      groups.forEach((g, k) => add(g, all.filter((i) => labelOf(run, e.names[i]) === g), sign(k)));
    }
    const rest = all.filter((i) => labelOf(run, e.names[i]) === null);
    if (rest.length) add(c ? "no label" : "subjects", rest, { color: "#8795a1" });
    return { traces, layout: { ...base, showlegend: groups.length > 0, legend, margin: { l: 50, r: 20, t: 30, b: 45 }, xaxis: { ...grid, title: { text: safe(e.axes[0]) } }, yaxis: { ...grid, title: { text: safe(e.axes[1]) }, scaleanchor: "x" } } };
  }

  // ---- convergence and sweep --------------------------------------------------------------------------------------------------------------
  function historyPlot(h, curve) {
    const y = h.curves[curve], positive = y.every((v) => v === null || v > 0);
    return {
      traces: [{ type: "scatter", mode: "lines+markers", x: h.x, y, line: { color: colour(0), width: 2 }, marker: { size: 4 }, hovertemplate: "iteration %{x}<br>%{y:.4g}<extra></extra>" }],
      layout: { ...base, xaxis: { ...grid, title: { text: "iteration" } }, yaxis: { ...grid, type: positive ? "log" : "linear", title: { text: safe(spoken(curve)) + (positive ? " (logarithmic)" : ""), standoff: 10 }, tickformat: ".2~g", nticks: 6 } },
    };
  }
  const firstCurve = (h) => (h.curves.objective ? "objective" : Object.keys(h.curves)[0]);

  // paper gives a plot another width than the screen: with a view box its drawing scales as a picture does
  function scalable(div) {
    const fit = () => {
      const all = div.querySelectorAll(".main-svg");
      for (const svg of all) svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
      if (all.length) div.style.setProperty("--ratio", `${all[0].getAttribute("width")} / ${all[0].getAttribute("height")}`);
    };
    fit();
    div.on("plotly_afterplot", fit);
  }
  function draw(panel, plot, note) {
    $(`${panel}-panel`).hidden = !plot;
    if (!plot) return;
    Plotly.react($(panel), plot.traces, plot.layout, config);
    $(`${panel}-note`).textContent = note;
  }
  function drawMatrix() {
    const run = data.runs[state.run];
    draw("matrix", run.matrix && matrixPlot(run), run.matrix_note);
  }
  function drawEmbedding() {
    const run = data.runs[state.run], e = run.embeddings[Math.min(state.embedding, run.embeddings.length - 1)];
    draw("embedding", e && embeddingPlot(run, e), e?.note);
  }
  function drawHistory() {
    const run = data.runs[state.run], h = run.history;
    if (h && !h.curves[state.curve]) state.curve = firstCurve(h);
    draw("history", h && historyPlot(h, state.curve), run.history_note);
  }
  function element(tag, parent, properties) {
    const made = Object.assign(document.createElement(tag), properties);
    parent.append(made);
    return made;
  }
  function drawSweep() {
    const box = $("multiples"), lines = data.criteria[0].lines, key = element("p", box, { className: "key small" });
    const swatch = (background, text, more = "") => { element("i", key, {}).style.cssText = `background:${background};${more}`; key.append(`${text} `); };
    lines.forEach((line, i) => swatch(colour(i), line.name));
    if (data.choice) key.append(element("b", key, { textContent: "★" }), "the run to look at first ");
    const references = [...new Set(data.criteria.filter((p) => p.reference !== null).map((p) => p.reference_title))];
    if (references.length) swatch("none", references.join(", or "), "border-top:2px dotted #8795a1;height:0");
    element("i", key, {}).style.width = 0;
    key.append("↓ the smaller the better, ↑ the larger");
    let row = null, group = null;
    for (const panel of data.criteria) {
      if (panel.group !== group) {
        group = panel.group;
        element("h3", box, { textContent: group });
        row = element("div", box, { className: "multiples" });
      }
      const cell = element("div", row, { className: "multiple" }), head = element("p", cell, { className: "small", textContent: `${panel.title} ${panel.better === "low" ? "↓" : "↑"} ` });
      if (panel.unit) element("span", head, { className: "soft", textContent: panel.unit });
      const div = element("div", cell, { className: "plot" });
      const traces = panel.lines.map((line, i) => ({
        type: "scatter", mode: "lines+markers", name: safe(line.name), x: line.x, y: line.y, text: line.runs.map(safe), line: { color: colour(i), width: 2 }, marker: { size: 7 }, connectgaps: false,
        hovertemplate: `%{text}<br>σ = %{x}<br>${safe(panel.title)} %{y:.4g}<extra></extra>`,
      }));
      panel.lines.forEach((line) => line.runs.forEach((run, j) => {
        if (run === data.choice) traces.push({ type: "scatter", mode: "markers", x: [line.x[j]], y: [line.y[j]], hoverinfo: "skip", marker: { symbol: "star", size: 15, color: "#e0a100", line: { width: 1, color: "#6b4a00" } } });
      }));
      const widths = [...new Set(panel.lines.flatMap((l) => l.x))].filter((v) => v !== null).sort((a, b) => a - b);
      const ticks = widths.filter((_, i) => i % Math.ceil(widths.length / 6) === 0);
      const layout = {
        ...base, margin: { l: 42, r: 12, t: 6, b: 34 }, showlegend: false, shapes: [],
        xaxis: { ...grid, type: "log", tickvals: ticks, ticktext: ticks.map(number), title: { text: safe(`σ, ${data.unit}`), standoff: 2, font: { size: 11 } } },
        yaxis: { ...grid, rangemode: panel.better === "low" ? "tozero" : "normal", nticks: 5, range: panel.share ? [0, 1.15] : undefined },
      };
      if (panel.reference !== null) {
        layout.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: panel.reference, y1: panel.reference, line: { dash: "dot", width: 2, color: "#8795a1" } });
        traces.push({ type: "scatter", mode: "markers", x: [widths[0]], y: [panel.reference], marker: { opacity: 0 }, hovertemplate: `${safe(panel.reference_title)} %{y:.4g}<extra></extra>` });
      }
      Plotly.newPlot(div, traces, layout, { ...config, displayModeBar: false });
      scalable(div);
    }
  }

  // ---- paper ------------------------------------------------------------------------------------------------------------------------------
  // Every run is printed, with charts that its article gets when somebody prints.
  function drawForPaper() {
    for (const details of document.querySelectorAll("details")) details.open = true;
    document.querySelectorAll("article.run").forEach((article, i) => {
      const run = data.runs[i], box = article.querySelector(".prints");
      if (box.querySelector("figure")) return;
      const plots = [
        run.matrix && ["Distances", matrixPlot(run), run.matrix_note],
        ...run.embeddings.map((e) => [`Embedding: ${e.title}`, embeddingPlot(run, e), e.note]),
        run.history && ["Convergence of the atlas", historyPlot(run.history, firstCurve(run.history)), run.history_note],
      ];
      for (const [title, plot, note] of plots.filter(Boolean)) {
        const figure = element("figure", box, {}), div = (element("h4", figure, { textContent: title }), element("div", figure, { className: "plot" }));
        Plotly.newPlot(div, plot.traces, { ...plot.layout, width: 460, height: 330 }, { staticPlot: true });
        scalable(div);
        if (note) element("figcaption", figure, { textContent: note });
      }
    });
  }
  function clearPaper() { // the charts follow what is chosen on the screen, and cost memory
    for (const figure of document.querySelectorAll(".prints figure")) { Plotly.purge(figure.querySelector(".plot")); figure.remove(); }
  }

  // ---- controls ---------------------------------------------------------------------------------------------------------------------------
  function options(select, entries, chosen) {
    select.replaceChildren(...entries.map(([value, text]) => Object.assign(document.createElement("option"), { value, textContent: text })));
    select.value = chosen;
  }
  function showRun() {
    const run = data.runs[state.run], scene = run.scene, names = Object.keys(run.labels.columns).filter((n) => colourable(run, n));
    if (!names.includes(state.label)) {
      const groups = (n) => new Set(run.labels.columns[n].values.filter((v) => v !== null)).size;
      state.label = names.includes(data.label) ? data.label : names.find((n) => !run.labels.columns[n].numeric && groups(n) < run.labels.subjects.length) ?? names[0] ?? null;
    }
    options($("label-select"), names.map((n) => [n, n]), state.label ?? "");
    $("label-select").parentElement.hidden = !names.length;
    $("run-select").parentElement.hidden = data.runs.length < 2;
    $("curve-box").hidden = !run.history || Object.keys(run.history.curves).length < 2;
    options($("embedding-select"), run.embeddings.map((e, i) => [i, e.title]), Math.min(state.embedding, Math.max(0, run.embeddings.length - 1)));
    options($("curve-select"), run.history ? Object.keys(run.history.curves).map((c) => [c, spoken(c)]) : [], "");
    const fields = scene ? scene.fields : [], modes = scene ? scene.modes : [];
    if (state.field >= fields.length) state.field = -1;
    if (state.mode >= modes.length) state.mode = 0;
    state.step = 0;
    options($("field-select"), [[-1, "shape"], ...fields.map((f, i) => [i, f.title])], state.field);
    options($("mode-select"), modes.map((m, i) => [i, m.title]), state.mode);
    const moving = scene && (scene.d !== 3 || webgl);
    $("field-box").hidden = !moving || !fields.length;
    for (const id of ["mode-box", "step-box", "play"]) $(id).hidden = !moving || !modes.length;
    $("spin").hidden = !moving || scene.d !== 3;
    if (modes.length) Object.assign($("step"), { min: modes[state.mode].steps[0], max: modes[state.mode].steps.at(-1), value: 0 });
    document.querySelectorAll("article.run").forEach((a, i) => a.classList.toggle("shown", i === state.run));
    drawScene(); moveScene(); drawMatrix(); drawEmbedding(); drawHistory();
    if (run.history) $("curve-select").value = state.curve;
  }
  function listen(id, change) { $(id).addEventListener("change", (event) => change(event.target.value)); }
  function sortTables() {
    for (const table of document.querySelectorAll("table.sortable")) table.querySelectorAll("th button").forEach((button, c) => {
      button.title = "sort";
      let down = false;
      button.addEventListener("click", () => {
        const key = (tr) => { const td = tr.cells[c]; return "v" in td.dataset ? (td.dataset.v === "" ? Infinity : Number(td.dataset.v)) : td.textContent; };
        const rows = [...table.tBodies[0].rows].sort((a, b) => { const x = key(a), y = key(b); return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1); });
        down = !down;
        table.tBodies[0].append(...rows);
      });
    });
  }

  function watchTables() { // a table that goes on beyond its card fades at that edge
    for (const box of document.querySelectorAll(".scroll")) {
      const look = () => {
        box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
        box.classList.toggle("below", box.scrollTop + box.clientHeight < box.scrollHeight - 2);
      };
      box.addEventListener("scroll", look, { passive: true });
      new ResizeObserver(look).observe(box);
    }
  }

  sortTables();
  watchTables();
  if (data.criteria.length) drawSweep();
  if (data.runs.length) {
    state.run = Math.max(0, data.runs.findIndex((r) => r.run === data.choice));
    $("run-select").value = state.run;
    listen("run-select", (v) => { state.run = Number(v); showRun(); });
    listen("label-select", (v) => { state.label = v; drawMatrix(); drawEmbedding(); });
    listen("order-select", (v) => { state.order = v; drawMatrix(); });
    listen("embedding-select", (v) => { state.embedding = Number(v); drawEmbedding(); });
    listen("curve-select", (v) => { state.curve = v; drawHistory(); });
    listen("field-select", (v) => { state.field = Number(v); drawScene(); });
    listen("mode-select", (v) => { state.mode = Number(v); state.step = 0; $("step").value = 0; drawScene(); moveScene(); });
    $("step").addEventListener("input", (event) => { move("play", false); state.step = Number(event.target.value); moveScene(); });
    for (const what of ["spin", "play"]) $(what).addEventListener("click", () => move(what, !motion[what]));
    showRun();
    new IntersectionObserver(([entry]) => { motion.seen = entry.isIntersecting; requestAnimationFrame(tick); }).observe($("scene"));
    if (webgl && data.runs[state.run].scene && !matchMedia("(prefers-reduced-motion: reduce)").matches) move("spin", true);
    for (const gesture of ["pointerdown", "wheel"]) $("scene").addEventListener(gesture, () => move("spin", false), { passive: true });
  }
  addEventListener("beforeprint", drawForPaper);
  addEventListener("afterprint", clearPaper);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? drawForPaper() : clearPaper()));
  document.body.dataset.ready = "true"; // tests and printers wait for it
})();
