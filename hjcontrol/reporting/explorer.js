// One soft-maximum layer, read at any eps, in doubles: the same formulas as hjcontrol.analysis.
// model: W (N x d) and b as Float64Array, classes (or null), D2: per class, and of all, the largest |W_j - W_k|^2
"use strict";

function reader(model) {
  const { N, d, W, b, classes, count, samples, width } = model;
  const row = (A, j) => A.subarray(j * d, (j + 1) * d);
  const dot = (u, v) => { let s = 0; for (let k = 0; k < d; k++) s += u[k] * v[k]; return s; };
  const square = (u, v) => { let s = 0; for (let k = 0; k < d; k++) s += (u[k] - v[k]) ** 2; return s; };
  const lse = (z, eps) => {
    let top = -Infinity;
    for (const v of z) if (v > top) top = v;
    if (eps === 0 || top === -Infinity) return top;
    let s = 0;
    for (const v of z) s += Math.exp((v - top) / eps);
    return top + eps * Math.log(s);
  };
  const gibbs = (z, eps) => {
    let top = -Infinity;
    for (const v of z) if (v > top) top = v;
    const e = Float64Array.from(z, (v) => (eps === 0 ? (v === top ? 1 : 0) : Math.exp((v - top) / eps)));
    const s = e.reduce((a, v) => a + v, 0);
    return e.map((v) => v / s);
  };
  const ratio = (a, c) => (c > 0 ? a / c : Infinity);
  const logits = (x) => Float64Array.from({ length: N }, (_, j) => dot(row(W, j), x) + b[j]);
  const mean = (p) => {
    const m = new Float64Array(d);
    for (let j = 0; j < N; j++) if (p[j] > 0) for (let k = 0; k < d; k++) m[k] += p[j] * W[j * d + k];
    return m;
  };
  const members = classes === null ? [] : Array.from({ length: count }, (_, c) =>
    [...Array(N).keys()].filter((j) => classes[j] === c));
  const pick = (z, js) => Float64Array.from(js, (j) => z[j]);

  // Largest eigenvalue of Cov_pi(W)/eps by powers; eigenvalues converge as the square of the vectors.
  function curvature(p, eps) {
    if (eps === 0) return NaN;
    const m = mean(p), live = [...Array(N).keys()].filter((j) => p[j] > 1e-18);
    let v = Float64Array.from({ length: d }, (_, k) => 1 + 0.37 * Math.sin(k + 1)), old = -1, top = 0;
    for (let step = 0; step < 4000; step++) {
      const u = new Float64Array(d);
      for (const j of live) {
        let s = 0;
        for (let k = 0; k < d; k++) s += (W[j * d + k] - m[k]) * v[k];
        s *= p[j];
        for (let k = 0; k < d; k++) u[k] += s * (W[j * d + k] - m[k]);
      }
      top = Math.sqrt(dot(u, u));
      if (top === 0) return 0;
      v = u.map((a) => a / top);
      if (Math.abs(top - old) <= 1e-15 * top) break;
      old = top;
    }
    return top / eps;
  }

  // As analysis.robustness.certified_radius: the better of two certificates, the least over the rivals.
  function radius(z, scores, eps) {
    const label = scores.indexOf(Math.max(...scores));
    const slopes = members.map((js) => {
      const p = new Float64Array(N), own = gibbs(pick(z, js), eps);
      js.forEach((j, i) => { p[j] = own[i]; });
      return mean(p);
    });
    let least = Infinity, rival = -1;
    for (let c = 0; c < count; c++) {
      if (c === label) continue;
      const margin = scores[label] - scores[c];
      if (!(margin > 0)) return { label, rival: c, radius: 0 };
      const away = members[c].map((j) => Math.sqrt(square(row(W, j), slopes[label])));
      const start = Math.sqrt(square(slopes[label], slopes[c])), steepest = Math.max(...away);
      const D2 = model.D2[c], bend = D2 > 0 ? Math.max(((steepest - start) * 4 * eps) / D2, 0) : 0;
      const rise = start * bend + (eps > 0 ? (D2 * bend * bend) / (8 * eps) : 0);
      const bent = eps > 0 ? D2 / (4 * eps) : 0;
      const curved = ratio(2 * margin, start + Math.sqrt(start * start + 2 * bent * margin));
      const reach = curved <= bend ? curved : bend + ratio(margin - rise, steepest);
      const zc = pick(z, members[c]);
      const far = Math.min(...zc.map((v, i) => ratio(scores[label] - v, away[i])));
      let low = far;
      if (Number.isFinite(far)) {
        let high = far;
        low = 0;
        for (let n = 0; n < 60; n++) {
          const r = 0.5 * (low + high);
          if (lse(zc.map((v, i) => v + r * away[i]), eps) <= scores[label]) low = r; else high = r;
        }
      }
      const best = Math.max(reach, low);
      if (best < least) { least = best; rival = c; }
    }
    return { label, rival, radius: least };
  }

  function read(x, eps) {
    const z = logits(x), p = gibbs(z, eps), value = lse(z, eps), hard = lse(z, 0);
    const order = [...Array(N).keys()].sort((i, j) => z[j] - z[i] || i - j);
    const entropy = p.reduce((s, v) => s - (v > 0 ? v * Math.log(v) : 0), 0);
    const n = samples.length / d;
    const near = Float64Array.from({ length: n }, (_, i) =>
      -Math.log(n) - square(row(samples, i), x) / (2 * width * width));
    const scores = members.map((js) => lse(pick(z, js), eps));
    const held = count > 1 ? radius(z, scores, eps) : { label: -1, rival: -1, radius: NaN };
    return { value, hard, entropy, gap: N > 1 ? z[order[0]] - z[order[1]] : Infinity, score: -lse(near, 1),
      curvature: curvature(p, eps), ...held, weights: p, order, scores, shares: gibbs(scores, eps), logits: z };
  }

  // The path through the soft tree over the atoms: at eps = 0 a point goes to the side of the larger maximum.
  function path(z, eps) {
    const steps = [];
    let node = model.tree;
    while (Array.isArray(node)) {
      const leaves = (t) => (Array.isArray(t) ? t.flatMap(leaves) : [t]);
      const sides = node.map(leaves), sums = sides.map((js) => lse(pick(z, js), eps));
      const lead = sums[0] - sums[1];
      const left = eps > 0 ? 1 / (1 + Math.exp(-lead / eps)) : (Math.sign(lead) + 1) / 2;
      steps.push({ sides, lead, share: Math.max(left, 1 - left) });
      node = node[lead >= 0 ? 0 : 1];
    }
    return { steps, atom: node };
  }
  return { read, path, row, gibbs, logits, members, pick, lse };
}

function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Float64Array(bytes.buffer);
}

function model_of(packed) {
  const model = { ...packed };
  for (const name of ["W", "b", "samples", "shown", "D2"]) model[name] = unpacked(packed[name]);
  return model;
}

if (typeof module !== "undefined") module.exports = { reader, model_of };
