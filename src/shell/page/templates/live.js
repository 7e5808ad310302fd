"use strict";
// Asks for the page again every two seconds, and puts in the sections that are other ones now.
(() => {
  const everyMs = 2000;
  const gone = document.getElementById("gone");

  // An open table stays open, and whoever uses the keyboard in a section keeps their place in it.
  const update = (fresh) => {
    document.title = fresh.title;
    for (const next of fresh.querySelectorAll("[data-live]")) {
      const now = document.getElementById(next.id);
      if (!now || now.contains(document.activeElement) && document.activeElement !== document.body) continue;
      const open = new Set([...now.querySelectorAll("details[open]")].map((details) => details.id));
      for (const details of next.querySelectorAll("details")) details.open = open.has(details.id);
      if (now.outerHTML !== next.outerHTML) now.replaceWith(document.importNode(next, true));
    }
  };

  const ask = async () => {
    try {
      const answer = await fetch("/", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      update(new DOMParser().parseFromString(await answer.text(), "text/html"));
      gone.hidden = true;
    } catch {
      gone.hidden = false;
    }
    setTimeout(ask, everyMs);
  };

  setTimeout(ask, everyMs);
})();
