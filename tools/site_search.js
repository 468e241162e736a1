// Asks the search of a built site what its readers ask, by the site's own scripts:
//     node tools/site_search.js docs/_build/html
// Fails if the page that answers is not among the first three results. With words after the folder, prints what these find.
"use strict";
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const ANSWERS = {
  "gradient clipping": "how-to/training",
  "clip gradient": "how-to/while-training how-to/training",
  freeze: "how-to/while-training",
  "8-bit": "how-to/low-precision",
  sparse: "how-to/rows",
  EMA: "how-to/averages",
  pandas: "how-to/while-training",
  "learning rate schedule": "how-to/schedules",
  checkpoint: "how-to/checkpoints",
  "weight decay": "how-to/training",
  install: "tutorial/getting-started",
  GPU: "explanation/limits",
  "reproducible": "explanation/reproducibility",
};

// what the scripts of a page find in a browser, as far as a search needs it
const page = {
  document: {
    addEventListener() {},
    documentElement: { dataset: { content_root: "" } },
    getElementById: () => ({ childNodes: [], children: [], removeChild() {} }),
    querySelector: () => null,
    readyState: "loading",
  },
  localStorage: { setItem() {}, getItem() {} },
  console,
};
page.window = page;
vm.createContext(page);

const [site, ...words] = process.argv.slice(2);
const scripts = ["documentation_options", "doctools", "sphinx_highlight", "base-stemmer", "english-stemmer"];
for (const name of [...scripts, "language_data", "searchtools", "../searchindex"]) {
  const file = path.join(site, "_static", `${name}.js`);
  if (fs.existsSync(file)) vm.runInContext(fs.readFileSync(file, "utf8"), page, { filename: file });
}
page.ask = null;
vm.runInContext("ask = (query) => Search._performSearch(...Search._parseQuery(query))", page);

let missed = 0;
for (const query of words.length ? [words.join(" ")] : Object.keys(ANSWERS)) {
  const found = page.ask(query).reverse();
  const first = found.slice(0, words.length ? 12 : 3);
  const wanted = (ANSWERS[query] ?? "").split(" ");
  const ok = words.length || first.some(([name]) => wanted.includes(name));
  missed += !ok;
  console.log(`${ok ? "" : "MISSED "}${query}: ${first.map((r) => `${r[0]}${r[2] ?? ""} (${r[4]})`).join(", ")}`);
}
process.exit(missed ? 1 : 0);
