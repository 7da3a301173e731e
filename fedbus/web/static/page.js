// A page that asks for itself anew: at a beat of the server, while somebody looks; and word when it cannot.
"use strict";
(() => {
  if (!document.querySelector("[data-live]")) return;
  const LEAST_MS = 1000;
  const link = document.getElementById("link");
  let missed = false;
  let last = 0;

  const say = (away, text) => {
    link.classList.toggle("away", away);
    if (link.textContent !== text) link.textContent = text;
  };
  const beat = () => {
    missed = document.hidden || Date.now() - last < LEAST_MS;
    if (missed) return;
    last = Date.now();
    document.body.dispatchEvent(new Event("tick"));
  };
  setInterval(() => missed && beat(), LEAST_MS);
  document.addEventListener("visibilitychange", () => missed && beat());

  const source = new EventSource("/live");
  source.addEventListener("open", () => say(false, "live"));
  source.addEventListener("error", () => say(true, "this page's server does not answer"));
  source.addEventListener("beat", beat);
  source.addEventListener("link", (event) => {
    const { trouble } = JSON.parse(event.data);
    say(Boolean(trouble), trouble ? trouble.what : "live");
  });
})();
