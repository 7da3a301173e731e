// A page that could not be made yet is loaded again, until it can.
"use strict";
setInterval(async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status !== 503) location.reload();
  } catch {
    return; // the page itself is away: the next look may find it
  }
}, 2000);
