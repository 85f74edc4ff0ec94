"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "sendDataToCloud"], topojsonURL: "", displayModeBar: matchMedia("(hover: none)").matches ? false : "hover" };
  const font = { family: "system-ui, sans-serif", size: 12, color: "#1b2733" };
  const base = { font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 55, r: 15, t: 12, b: 45 }, hovermode: "closest", modebar: { bgcolor: "rgba(255,255,255,0.8)", color: "#8795a1", activecolor: "#0b5cad" } };
  const grid = { gridcolor: "#e6ebf0", zerolinecolor: "#cfd7de", automargin: true };
  const diverging = [[0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#f2f2f2"], [0.75, "#f4a582"], [1, "#b2182b"]];
  const colour = (i) => data.palette[i % data.palette.length];
  // Plotly reads a little HTML in texts: a subject's name must stay a name
  const safe = (s) => String(s).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const number = (v) => (v === null || v === undefined ? "" : Number(v).toPrecision(4).replace(/\.?0+$/, ""));
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
  function traced(scene, x) {
    const { columns, fields } = opened(scene), flat = scene.d === 2;
    if (scene.k === 3) {
      const trace = {
        type: "mesh3d", x: x[0], y: x[1], z: flat ? x[0].map(() => 0) : x[2], i: columns[0], j: columns[1], k: columns[2], hoverinfo: "skip",
        flatshading: false, lighting: { ambient: 0.42, diffuse: 0.72, specular: 0.1, roughness: 0.7, fresnel: 0.05, vertexnormalsepsilon: 1e-30, facenormalsepsilon: 1e-30 },
        lightposition: { x: -1e5, y: 1.2e5, z: 9e4 }, color: "#c3cfda",
      };
      if (state.field >= 0) {
        const f = scene.fields[state.field], v = fields[state.field], sorted = v.map(Math.abs).sort((a, b) => a - b);
      // a few extreme vertices must not fade all others: the scale ends at the 98 % quantile
      const top = Math.max(sorted[Math.floor(0.98 * (sorted.length - 1))], 1e-30);
        Object.assign(trace, {
          intensity: v, colorscale: f.diverging ? diverging : "Viridis", cmin: f.diverging ? -top : Math.min(...v), cmax: f.diverging ? top : Math.max(...v),
          colorbar: { thickness: 10, len: 0.7, title: { text: safe(f.unit), side: "right" } }, hoverinfo: "text", text: v.map(number),
        });
      }
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
  let camera = null;
  function drawScene() {
    const scene = data.runs[state.run].scene;
    $("scene-panel").hidden = !scene;
    if (!scene) return;
    const trace = traced(scene, positions(scene)), box = bounds(scene), layout = { ...base, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false };
    if (scene.d === 2) {
      Object.assign(layout, { margin: { l: 30, r: 10, t: 5, b: 25 }, xaxis: { ...grid, range: box[0], scaleanchor: "y" }, yaxis: { ...grid, range: box[1] } });
    } else {
      const size = box.map(([a, b]) => Math.max(b - a, 1e-9)), top = Math.max(...size), none = { visible: false, showspikes: false };
      // perspective: plotly.js lights no mesh in an orthographic view
      const [, up, eye] = scene.camera, axis = (v) => ({ x: v[0], y: v[1], z: v[2] });
      camera = { eye: axis(eye.map((v) => 1.7 * v)), up: axis(up), center: { x: 0, y: 0, z: 0 } };
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
    if (!scene || !scene.modes.length) return;
    const t = traced(scene, positions(scene));
    Plotly.restyle($("scene"), scene.d === 2 ? { x: [t.x], y: [t.y] } : { x: [t.x], y: [t.y], z: [t.z] }, [0]);
    $("step-value").textContent = `${state.step >= 0 ? "+" : "−"}${Math.abs(state.step).toFixed(1)} ${scene.modes[state.mode].unit}`;
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

  // ---- distances --------------------------------------------------------------------------------------------------------------------------
  function drawMatrix() {
    const run = data.runs[state.run], m = run.matrix;
    $("matrix-panel").hidden = !m;
    if (!m) return;
    let order = state.order === "name" ? m.names.map((_, i) => i) : [...m.order];
    const groups = groupsOf(run), rank = (i) => { const g = groups.indexOf(String(labelOf(run, m.names[i]))); return g < 0 ? groups.length : g; };
    if (state.order === "label") order = order.map((i, p) => [i, p]).sort((a, b) => rank(a[0]) - rank(b[0]) || a[1] - b[1]).map(([i]) => i);
    m.steps ??= new Uint16Array(bytes(m.values));
    const n = m.names.length, distance = (i, j) => { const q = m.steps[i * n + j]; return q === 65535 ? null : (q / 65534) * m.largest; };
    const names = order.map((i) => safe(m.names[i])), z = order.map((i) => order.map((j) => distance(i, j)));
    const traces = [{ type: "heatmap", z, x: names, y: names, hovertemplate: "%{y} – %{x}<br>%{z:.4g}<extra></extra>", colorscale: "Viridis", reversescale: true, colorbar: { thickness: 10, title: { text: "√(2H)", side: "right" } }, hoverongaps: false }];
    const small = names.length <= 40, axis = { type: "category", showticklabels: small, tickfont: { size: names.length > 20 ? 8 : 10 }, automargin: true };
    const layout = { ...base, margin: { l: 20, r: 10, t: 8, b: 20 }, xaxis: { ...axis, domain: [groups.length ? 0.045 : 0, 1], constrain: "domain" }, yaxis: { ...axis, autorange: "reversed", scaleanchor: "x", constrain: "domain" } };
    if (groups.length) {
      const steps = groups.flatMap((_, g) => [[g / groups.length, colour(g)], [(g + 1) / groups.length, colour(g)]]);
      traces.push({
        type: "heatmap", z: order.map((i) => [rank(i) < groups.length ? rank(i) : null]), x: ["label"], y: names, xaxis: "x2", yaxis: "y", showscale: false, colorscale: steps, zmin: -0.5, zmax: groups.length - 0.5,
        text: order.map((i) => [`${safe(m.names[i])}: ${safe(labelOf(run, m.names[i]) ?? "no label")}`]), hoverinfo: "text",
      });
      layout.xaxis2 = { domain: [0, 0.03], showticklabels: false, type: "category", fixedrange: true };
    }
    Plotly.react($("matrix"), traces, layout, config);
  }

  // ---- embedding --------------------------------------------------------------------------------------------------------------------------
  function drawEmbedding() {
    const run = data.runs[state.run];
    $("embedding-panel").hidden = !run.embeddings.length;
    if (!run.embeddings.length) return;
    const e = run.embeddings[Math.min(state.embedding, run.embeddings.length - 1)], c = column(run), groups = groupsOf(run), traces = [];
    const tip = (i) => [`<b>${safe(e.names[i])}</b>`, ...Object.entries(run.labels.columns).map(([k, col]) => `${safe(k)}: ${safe(col.values[run.labels.subjects.indexOf(e.names[i])] ?? "")}`)].join("<br>");
    const add = (name, rows, marker) => traces.push({
      type: "scatter", mode: e.names.length <= 30 ? "markers+text" : "markers", name: safe(name), x: rows.map((i) => e.xy[i][0]), y: rows.map((i) => e.xy[i][1]), text: rows.map((i) => safe(e.names[i])),
      textposition: "top center", textfont: { size: 9, color: "#5b6b7a" }, hovertext: rows.map(tip), hoverinfo: "text", marker: { size: 10, line: { width: 1, color: "#fff" }, ...marker },
    });
    const all = e.names.map((_, i) => i), symbols = ["circle", "diamond", "square", "cross", "triangle-up", "star", "x", "hexagon"];
    if (c && c.numeric) {
      const known = all.filter((i) => labelOf(run, e.names[i]) !== null);
      add(state.label, known, { color: known.map((i) => labelOf(run, e.names[i])), colorscale: "Viridis", showscale: true, colorbar: { thickness: 10, title: { text: safe(state.label), side: "right" } } });
    } else {
      groups.forEach((g, k) => add(g, all.filter((i) => labelOf(run, e.names[i]) === g), { color: colour(k), symbol: symbols[k % symbols.length] }));
    }
    const rest = all.filter((i) => labelOf(run, e.names[i]) === null);
    if (rest.length) add(c ? "no label" : "subjects", rest, { color: "#8795a1" });
    const layout = { ...base, showlegend: groups.length > 0, legend: { orientation: "h", y: 1.12 }, margin: { l: 50, r: 15, t: 25, b: 45 }, xaxis: { ...grid, title: { text: safe(e.axes[0]) } }, yaxis: { ...grid, title: { text: safe(e.axes[1]) }, scaleanchor: "x" } };
    Plotly.react($("embedding"), traces, layout, config);
    $("embedding-note").textContent = e.note;
  }

  // ---- convergence and sweep --------------------------------------------------------------------------------------------------------------
  function drawHistory() {
    const run = data.runs[state.run], h = run.history;
    $("history-panel").hidden = !h;
    if (!h) return;
    if (!h.curves[state.curve]) state.curve = h.curves.objective ? "objective" : Object.keys(h.curves)[0];
    const y = h.curves[state.curve], positive = y.every((v) => v === null || v > 0);
    Plotly.react($("history"), [{ type: "scatter", mode: "lines+markers", x: h.x, y, line: { color: colour(0), width: 2 }, marker: { size: 4 } }],
      { ...base, xaxis: { ...grid, title: { text: "iteration" } }, yaxis: { ...grid, type: positive ? "log" : "linear", title: { text: safe(state.curve.replaceAll("_", " ")) }, tickformat: ".2~g", nticks: 6 } }, config);
  }
  function drawSweep() {
    const box = $("multiples");
    if (!box) return;
    for (const panel of data.criteria) {
      const div = document.createElement("div");
      div.className = "multiple";
      box.append(div);
      const traces = panel.lines.map((line, i) => ({
        type: "scatter", mode: "lines+markers", name: safe(line.name), x: line.x, y: line.y, text: line.runs.map(safe), line: { color: colour(i), width: 2 }, marker: { size: 7 }, connectgaps: false,
        hovertemplate: `%{text}<br>σ = %{x}<br>${safe(panel.title)} %{y:.4g}<extra></extra>`,
      }));
      panel.lines.forEach((line) => line.runs.forEach((run, j) => {
        if (run === data.choice) traces.push({ type: "scatter", mode: "markers", x: [line.x[j]], y: [line.y[j]], hoverinfo: "skip", showlegend: false, marker: { symbol: "star", size: 15, color: "#e0a100", line: { width: 1, color: "#6b4a00" } } });
      }));
      const widths = [...new Set(panel.lines.flatMap((l) => l.x))].filter((v) => v !== null).sort((a, b) => a - b);
      const layout = {
        ...base, title: { text: `${safe(panel.title)}${panel.unit ? ` <span style="color:#5b6b7a">(${panel.unit})</span>` : ""}`, font: { size: 13 }, x: 0.02, xanchor: "left", y: 0.97 }, margin: { l: 48, r: 10, t: 34, b: 38 }, showlegend: panel === data.criteria[0] && panel.lines.length > 1,
        legend: { orientation: "h", x: 0, y: -0.32, font: { size: 10 } }, xaxis: { ...grid, type: "log", tickvals: widths.length <= 6 ? widths : undefined, ticktext: widths.length <= 6 ? widths.map(String) : undefined, title: { text: "σ", standoff: 2 } },
        yaxis: { ...grid, rangemode: panel.better === "low" ? "tozero" : "normal", nticks: 5 }, shapes: [],
      };
      if (panel.reference !== null) {
        layout.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: panel.reference, y1: panel.reference, line: { dash: "dot", width: 1, color: "#8795a1" } });
        layout.annotations = [{ xref: "paper", x: 1, y: panel.reference, xanchor: "right", yanchor: "bottom", text: safe(panel.reference_title), showarrow: false, font: { size: 9, color: "#5b6b7a" } }];
        traces.push({ type: "scatter", mode: "markers", x: [widths[0]], y: [panel.reference], marker: { opacity: 0 }, hoverinfo: "skip", showlegend: false });
      }
      Plotly.newPlot(div, traces, layout, { ...config, displayModeBar: false });
    }
  }

  // ---- controls ---------------------------------------------------------------------------------------------------------------------------
  function options(select, entries, chosen) {
    select.replaceChildren(...entries.map(([value, text]) => Object.assign(document.createElement("option"), { value, textContent: text })));
    select.value = chosen;
  }
  function showRun() {
    const run = data.runs[state.run], scene = run.scene, names = Object.keys(run.labels.columns);
    if (!names.includes(state.label)) {
      const groups = (n) => new Set(run.labels.columns[n].values.filter((v) => v !== null)).size;
      state.label = names.includes(data.label) ? data.label : names.find((n) => !run.labels.columns[n].numeric && groups(n) > 1 && groups(n) < run.labels.subjects.length) ?? names[0] ?? null;
    }
    options($("label-select"), names.length ? names.map((n) => [n, n]) : [["", "nothing"]], state.label ?? "");
    options($("embedding-select"), run.embeddings.map((e, i) => [i, e.title]), Math.min(state.embedding, Math.max(0, run.embeddings.length - 1)));
    options($("curve-select"), run.history ? Object.keys(run.history.curves).map((c) => [c, c.replaceAll("_", " ")]) : [], "");
    const fields = scene ? scene.fields : [], modes = scene ? scene.modes : [];
    if (state.field >= fields.length) state.field = -1;
    if (state.mode >= modes.length) state.mode = 0;
    state.step = 0;
    options($("field-select"), [[-1, "shape"], ...fields.map((f, i) => [i, f.title])], state.field);
    options($("mode-select"), modes.map((m, i) => [i, m.title]), state.mode);
    $("field-box").hidden = !fields.length;
    for (const id of ["mode-box", "step-box", "play"]) $(id).hidden = !modes.length;
    $("spin").hidden = !scene || scene.d !== 3;
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

  sortTables();
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
    if (data.runs[state.run].scene && !matchMedia("(prefers-reduced-motion: reduce)").matches) move("spin", true);
    for (const gesture of ["pointerdown", "wheel"]) $("scene").addEventListener(gesture, () => move("spin", false), { passive: true });
  }
  document.body.dataset.ready = "true"; // tests and printers wait for it
})();
