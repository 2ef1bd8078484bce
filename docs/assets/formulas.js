// Formulas are marked \( \) and \[ \] by pymdownx.arithmatex; KaTeX draws them in the browser.
document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll(".arithmatex")) {
    renderMathInElement(place, {
      delimiters: [
        { left: "\\(", right: "\\)", display: false },
        { left: "\\[", right: "\\]", display: true },
      ],
      throwOnError: false,
    });
    // A full stop or a comma after a formula does not begin a line.
    const after = place.nextSibling;
    const last = place.querySelector(".katex-html > .katex-base:last-child");
    const mark = place.tagName === "SPAN" && after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:]+/);
    if (last && mark) {
      after.data = after.data.slice(mark[0].length);
      last.append(mark[0]);
    }
  }
});
