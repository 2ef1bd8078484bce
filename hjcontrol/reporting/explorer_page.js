// The page: what is chosen, what is read, and how both are shown.
(() => {
  const $ = (id) => document.getElementById(id);
  const model = model_of(JSON.parse($("model").textContent)), ask = reader(model), { d, N } = model;
  const LOW = -3, HIGH = 2, STEPS = 500, hues = ["#2f6fdf", "#d1495b", "#2a9d5c", "#b8860b", "#7b52ab", "#0c8599",
    "#c2255c", "#5c7c2a", "#e8590c", "#495057"];
  let x = model.shown.slice(0, d), eps = model.eps;
  const said = (v) => (Number.isNaN(v) ? "–" : !Number.isFinite(v) ? "∞" : Math.abs(v) >= 1e4 || (v !== 0 && Math.abs(v) < 1e-3) ?
    v.toExponential(3) : v.toPrecision(6));
  const put = (id, v) => { $(id).textContent = typeof v === "number" ? said(v) : v; $(id).dataset.exact = String(v); };
  const named = (c) => (model.names ? model.names[c] : String(c));

  function picture(canvas, values) {
    const side = Math.round(Math.sqrt(d)), ctx = canvas.getContext("2d"), most = Math.max(...values, 1e-300);
    canvas.width = canvas.height = side;
    for (let k = 0; k < d; k++) {
      ctx.fillStyle = `rgb(${[0, 1, 2].map(() => Math.round(255 * (1 - Math.max(values[k], 0) / most))).join(",")})`;
      ctx.fillRect(k % side, Math.floor(k / side), 1, 1);
    }
  }

  function bars(p, found) {
    const top = found.order.slice(0, 8), box = $("weights");
    box.replaceChildren(...top.map((j) => {
      const line = document.createElement("tr"), cell = () => line.appendChild(document.createElement("td"));
      if (model.image) picture(cell().appendChild(document.createElement("canvas")), ask.row(model.W, j));
      cell().textContent = model.classes ? `atom ${j}, ${named(model.classes[j])}` : `atom ${j}`;
      const bar = cell();
      bar.className = "bar";
      bar.appendChild(document.createElement("i")).style.width = `${100 * p[j]}%`;
      const number = cell();
      number.className = "number";
      number.textContent = p[j] < 5e-5 ? p[j].toExponential(1) : p[j].toFixed(4);
      number.dataset.exact = String(p[j]);
      return line;
    }));
  }

  function tree(z) {
    const { steps, atom } = ask.path(z, eps);
    const few = (js) => (js.length <= 3 ? js.join(", ") : `${js[0]}, ${js[1]} … ${js[js.length - 1]} (${js.length})`);
    const rows = steps.map(({ sides, lead, share }, n) => {
      const line = document.createElement("tr"), side = lead >= 0 ? 0 : 1;
      [n + 1, few(sides[side]), few(sides[1 - side]), said(Math.abs(lead)), share.toFixed(4)].forEach((text) => {
        line.appendChild(document.createElement("td")).textContent = text;
      });
      return line;
    });
    $("path").replaceChildren(...rows);
    put("leaf", model.classes ? `atom ${atom}, class ${named(model.classes[atom])}` : `atom ${atom}`);
  }

  function plane() {
    if (d !== 2) return;
    const canvas = $("plane"), ctx = canvas.getContext("2d"), n = 96, [lo, hi] = model.box, size = canvas.width;
    const at = (k, i) => lo[k] + ((hi[k] - lo[k]) * i) / (n - 1);
    const cell = size / n, value = new Float64Array(n * n), label = new Int32Array(n * n);
    for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) {
      const z = ask.logits([at(0, c), at(1, n - 1 - r)]);
      const scores = model.classes ? ask.members.map((js) => ask.lse(ask.pick(z, js), eps)) : z;
      const shares = ask.gibbs(scores, eps);
      label[r * n + c] = scores.indexOf(Math.max(...scores));
      value[r * n + c] = Math.max(...shares);
    }
    for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) {
      ctx.globalAlpha = 1;
      ctx.fillStyle = "#fff";
      ctx.fillRect(c * cell, r * cell, cell + 1, cell + 1);
      ctx.globalAlpha = 0.12 + 0.6 * value[r * n + c];
      ctx.fillStyle = hues[label[r * n + c] % hues.length];
      ctx.fillRect(c * cell, r * cell, cell + 1, cell + 1);
    }
    ctx.globalAlpha = 1;
    const spot = (p) => [((p[0] - lo[0]) / (hi[0] - lo[0])) * size, (1 - (p[1] - lo[1]) / (hi[1] - lo[1])) * size];
    for (let i = 0; i < model.shown.length / 2; i++) {
      const [u, v] = spot(ask.row(model.shown, i));
      ctx.fillStyle = "#111";
      ctx.fillRect(u - 1.5, v - 1.5, 3, 3);
    }
    const [u, v] = spot(x), r = ask.read(x, eps).radius;
    ctx.strokeStyle = "#111";
    ctx.lineWidth = 2;
    ctx.beginPath(); ctx.arc(u, v, 6, 0, 7); ctx.stroke();
    if (r > 0 && Number.isFinite(r)) {
      ctx.beginPath();
      ctx.ellipse(u, v, (r / (hi[0] - lo[0])) * size, (r / (hi[1] - lo[1])) * size, 0, 0, 7);
      ctx.setLineDash([5, 4]); ctx.stroke(); ctx.setLineDash([]);
    }
    $("x1").value = x[0]; $("x2").value = x[1];
  }

  function show() {
    const found = ask.read(x, eps);
    for (const name of ["value", "hard", "entropy", "curvature", "radius", "gap", "score"]) put(name, found[name]);
    put("label", found.label < 0 ? "–" : named(found.label));
    put("rival", found.rival < 0 ? "–" : named(found.rival));
    $("eps").textContent = eps === 0 ? "0 (hard)" : eps.toPrecision(4);
    $("slider").setAttribute("aria-valuetext", `eps = ${eps.toPrecision(4)}`);
    bars(found.weights, found);
    tree(found.logits);
    $("image").hidden = !model.image;
    if (model.image) picture($("image"), x);
    plane();
  }

  const of_slider = (s) => (s <= 0 ? 0 : model.unit * 10 ** (LOW + ((HIGH - LOW) * s) / STEPS));
  $("slider").addEventListener("input", () => { eps = of_slider(Number($("slider").value)); $("exact").value = eps; show(); });
  $("exact").addEventListener("change", () => { set_eps(Math.max(0, Number($("exact").value) || 0)); show(); });
  function set_eps(e) {
    eps = e;
    $("exact").value = e;
    $("slider").value = e > 0 ? Math.round(((Math.log10(e / model.unit) - LOW) / (HIGH - LOW)) * STEPS) : 0;
  }
  $("sample").addEventListener("change", () => { x = model.shown.slice(d * $("sample").value, d * $("sample").value + d); show(); });
  if (d === 2) {
    const canvas = $("plane"), [lo, hi] = model.box;
    canvas.addEventListener("click", (e) => {
      const box = canvas.getBoundingClientRect();
      x = Float64Array.of(lo[0] + ((hi[0] - lo[0]) * (e.clientX - box.left)) / box.width,
        hi[1] - ((hi[1] - lo[1]) * (e.clientY - box.top)) / box.height);
      show();
    });
    canvas.addEventListener("keydown", (e) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
      if (!move) return;
      e.preventDefault();
      x = x.map((v, k) => Math.min(hi[k], Math.max(lo[k], v + (move[k] * (hi[k] - lo[k])) / 100)));
      show();
    });
    for (const [k, id] of ["x1", "x2"].entries())
      $(id).addEventListener("change", () => { x[k] = Number($(id).value) || 0; show(); });
  }
  const asked = new URLSearchParams(location.hash.slice(1)); // a link to one reading: #sample=3&eps=0.25
  const first = Number(asked.get("sample") || 0);
  if (first > 0 && first < model.shown.length / d) {
    $("sample").value = first;
    x = model.shown.slice(d * first, d * first + d);
  }
  set_eps(asked.has("eps") ? Math.max(0, Number(asked.get("eps")) || 0) : eps);
  if (asked.has("slider")) { $("slider").value = asked.get("slider"); $("slider").dispatchEvent(new Event("input")); }
  $("tables").open = false;
  document.body.classList.add("live");
  show();
})();
