// How the site's search ranks what it finds (Sphinx's html_search_scorer): headings that hold the whole query come
// first, then guides, then the other pages; figures and the changelog come last.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  score: ([page, , , , score, , kind]) => {
    const folders = { "how-to": 3, tutorial: 2, reference: 1, explanation: 0, reports: -4 };
    const folder = folders[page.split("/")[0]] ?? -8;
    const kinds = { title: 8, object: -4 };
    return score + folder + (kinds[kind] ?? 0);
  },
};
