// data-busy on a form whose answer takes its time: the sentence to show once it has been sent.

export function tellWhatIsWaitedFor() {
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("[data-busy]");
    if (!form || event.defaultPrevented) return;
    const line = Object.assign(document.createElement("span"), { className: "busy", textContent: form.dataset.busy });
    line.setAttribute("role", "status");
    event.submitter?.after(line);
    // Once the form is on its way: a button that is off is not sent.
    setTimeout(() => event.submitter && (event.submitter.disabled = true));
  });
  // Back from the next page, a browser shows this one as it was left.
  addEventListener("pageshow", () => {
    for (const line of document.querySelectorAll(".busy")) {
      line.previousElementSibling.disabled = false;
      line.remove();
    }
  });
}
