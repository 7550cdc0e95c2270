// What pkgdown loads from the net, in a few lines of our own: dark and light, a search, buttons that copy code.
(function () {
  "use strict";
  var root = document.documentElement;
  var here = document.currentScript.src.replace(/extra\.js.*$/, "");

  // Before anything is drawn: what was chosen here, or else what the system is set to.
  function stored() { try { return localStorage.getItem("theme"); } catch (e) { return null; } }
  function show(theme) { root.setAttribute("data-theme", theme); }
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  show(stored() || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", function () { if (!stored()) show(dark.matches ? "dark" : "light"); });

  function element(name, attributes, text) {
    var made = document.createElement(name);
    Object.keys(attributes).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    if (text) made.textContent = text;
    return made;
  }

  function addSwitch() {
    var form = document.querySelector("nav.navbar form[role=search]");
    if (!form) return;
    var button = element("button", { type: "button", "class": "theme-switch", "aria-label": "Dark or light" }, "\u25D0");
    button.title = "Dark or light";
    button.addEventListener("click", function () {
      var next = root.getAttribute("data-theme") === "dark" ? "light" : "dark";
      show(next);
      try { localStorage.setItem("theme", next); } catch (e) { /* private windows keep nothing */ }
    });
    form.parentNode.insertBefore(button, form.nextSibling);
  }

  function addCopyButtons() {
    if (!navigator.clipboard) return; // only where the page may write to it
    document.querySelectorAll("main div.sourceCode, main pre.usage").forEach(function (block) {
      var button = element("button", { type: "button", "class": "copy", "aria-label": "Copy the code" }, "Copy");
      button.addEventListener("click", function () {
        var code = (block.querySelector("pre") || block).textContent.replace(/\n?#>[^\n]*/g, "").replace(/Copy$/, "");
        navigator.clipboard.writeText(code.trim() + "\n").then(function () {
          button.textContent = "Copied";
          setTimeout(function () { button.textContent = "Copy"; }, 1500);
        });
      });
      block.appendChild(button);
    });
  }

  // Pages whose title, heading and text have all the words; words in titles and headings count most.
  function matches(query) {
    var words = query.toLowerCase().split(/\s+/).filter(Boolean);
    return searchRows.map(function (row) {
      var title = row.title.toLowerCase(), part = row.part.toLowerCase(), text = row.text.toLowerCase();
      var path = row.path.toLowerCase(), score = row.part ? 0 : 1;
      for (var i = 0; i < words.length; i++) {
        var w = words[i];
        var found = (part.indexOf(w) >= 0) * 8 + (!row.part && (title.indexOf(w) >= 0 || path.indexOf(w) >= 0)) * 10 +
          (text.indexOf(w) >= 0);
        if (!found) return null;
        score += found;
      }
      return { row: row, score: score };
    }).filter(Boolean).sort(function (a, b) { return b.score - a.score; }).slice(0, 12);
  }

  function addSearch() {
    var input = document.getElementById("search-input");
    if (!input) return;
    input.setAttribute("aria-label", "Search");
    input.placeholder = "Search";
    var list = element("ul", { "class": "search-results", hidden: "" });
    input.parentNode.appendChild(list);
    var loading = false;
    function update() {
      list.textContent = "";
      list.hidden = input.value.trim().length < 2 || typeof searchRows === "undefined";
      if (list.hidden) return;
      var found = matches(input.value);
      if (found.length === 0) list.appendChild(element("li", { "class": "none" }, "Nothing found"));
      found.forEach(function (match) {
        var link = element("a", { href: here + match.row.path }, match.row.title);
        if (match.row.part) link.appendChild(element("small", {}, match.row.part));
        var item = element("li", {});
        item.appendChild(link);
        list.appendChild(item);
      });
    }
    input.addEventListener("focus", function () {
      if (loading) return;
      loading = true;
      var script = element("script", { src: here + "search-rows.js" });
      script.addEventListener("load", update);
      document.head.appendChild(script);
    });
    input.addEventListener("input", update);
    input.form.addEventListener("submit", function (event) {
      event.preventDefault();
      var first = list.querySelector("a");
      if (first) first.click();
    });
    document.addEventListener("keydown", function (event) { if (event.key === "Escape") list.hidden = true; });
    document.addEventListener("click", function (event) { if (!input.form.contains(event.target)) list.hidden = true; });
  }

  document.addEventListener("DOMContentLoaded", function () { addSwitch(); addCopyButtons(); addSearch(); });
})();
