"use strict";
(async () => {
  const LEVELS = 65534;
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);

  // curves as packed by bridge/report_data.py
  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const [count, points] = packed.shape, half = count * points;
    return (curve) => {
      const values = new Array(points), low = packed.low[curve], width = packed.high[curve] - low;
      for (let i = 0, code = 0; i < points; i++) {
        const at = curve * points + i;
        code = (code + planes[at] + 256 * planes[half + at]) & 65535;
        const value = low + (width * code) / LEVELS;
        values[i] = code > LEVELS ? NaN : packed.log[curve] ? Math.exp(value) : value;
      }
      return values;
    };
  }

  const data = read("data"), factors = data.factors;
  const curves = {};
  for (const [quantity, parts] of Object.entries(data.quantities)) {
    curves[quantity] = {};
    for (const [kind, packed] of Object.entries(parts.curves)) curves[quantity][kind] = await unpack(packed);
  }
  Bokeh.set_log_level("error"); // a tensor without a prediction has an empty chart, which is no news
  await Bokeh.embed.embed_item(read("figures"));
  const page = Bokeh.documents[0];
  const source = (name) => page.get_model_by_name(name);
  const range = page.get_model_by_name("steps");
  const lr = byId("lr"), decay = byId("decay"), tensor = byId("tensor"), step = byId("step");
  const order = [...tensor.options].map((option) => option.value);
  const number = (x) => (Number.isFinite(x) ? x.toPrecision(4) : "not known");

  const log = (values) => values.map((y) => (y > 0 ? y : NaN)); // what a logarithmic axis can show
  function fill(quantity, kind, x, columns) {
    const shown = quantity === "norm" ? columns : Object.fromEntries(Object.entries(columns).map(([k, v]) => [k, log(v)]));
    source(`${quantity}:${kind}`).data = { x, ...shown };
  }
  function nearest(steps, at) {
    let best = 0;
    steps.forEach((s, i) => { if (Math.abs(s - at) < Math.abs(steps[best] - at)) best = i; });
    return best;
  }
  function whatIf(quantity, index) {
    const parts = data.quantities[quantity];
    if (!curves[quantity]["what-if"] || index >= data.predicted) return null;
    const curve = (Number(lr.value) * factors.length + Number(decay.value)) * data.predicted + index;
    return { x: parts.steps["what-if"], y: curves[quantity]["what-if"](curve) };
  }
  function draw() {
    const index = Number(tensor.value);
    for (const [quantity, parts] of Object.entries(data.quantities)) {
      const get = (kind) => (curves[quantity][kind] ? curves[quantity][kind](index) : []);
      fill(quantity, "measured", parts.steps.measured, { y: get("measured") });
      fill(quantity, "predicted", parts.steps.predicted, { y: get("value"), low: get("low"), high: get("high") });
    }
    again();
  }
  function again() {
    const index = Number(tensor.value), at = Number(step.value);
    const lines = [];
    for (const [quantity, parts] of Object.entries(data.quantities)) {
      const other = whatIf(quantity, index);
      fill(quantity, "what-if", other ? other.x : [], { y: other ? other.y : [] });
      const say = (kind, key) => {
        const steps = parts.steps[kind];
        if (!steps.length || !curves[quantity][key]) return "not known";
        return number(curves[quantity][key](index)[nearest(steps, at)]);
      };
      const elsewhere = other ? number(other.y[nearest(other.x, at)]) : "not known";
      const name = quantity.replace("_", " ");
      lines.push(`${name}: measured ${say("measured", "measured")}, predicted ${say("predicted", "value")}, what-if ${elsewhere}`);
    }
    byId("lr-now").value = `×${factors[lr.value]} = ${number(data.lr * factors[lr.value])}`;
    byId("decay-now").value = `×${factors[decay.value]} = ${number(data.weight_decay * factors[decay.value])}`;
    byId("step-now").value = at.toLocaleString("en");
    byId("reading").value = `${tensor.selectedOptions[0].textContent} near step ${at.toLocaleString("en")}. ${lines.join("; ")}.`;
  }
  function pick(by) {
    const now = order.indexOf(tensor.value) + by;
    tensor.value = order[(now + order.length) % order.length];
    draw();
  }
  function zoom(factor, shift) {
    const last = Math.max(data.steps - 1, 1), width = Math.min((range.end - range.start) * factor, last);
    const start = (range.start + range.end - width) / 2 + shift * width;
    range.start = Math.min(Math.max(start, 0), last - width);
    range.end = range.start + width;
  }
  for (const input of [lr, decay, step]) input.addEventListener("input", again);
  tensor.addEventListener("change", draw);
  byId("previous").addEventListener("click", () => pick(-1));
  byId("next").addEventListener("click", () => pick(1));
  byId("zoom-in").addEventListener("click", () => zoom(0.5, 0));
  byId("zoom-out").addEventListener("click", () => zoom(2, 0));
  byId("left").addEventListener("click", () => zoom(1, -0.5));
  byId("right").addEventListener("click", () => zoom(1, 0.5));
  byId("reset").addEventListener("click", () => zoom(Infinity, 0));
  draw();
  document.documentElement.dataset.ready = "yes";
})();
