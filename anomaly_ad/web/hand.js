// Taking things out of a page.

// Puts a text on the clipboard: the newer way, or the one for pages that may not use it. Whether it worked.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = Object.assign(document.createElement("textarea"), { value: text });
    const focused = document.activeElement;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return done;
  }
}

// A button that copies the text of an element, and says so for a while.
function copyOnClick(button, element) {
  const word = button.textContent;
  button.addEventListener("click", async () => {
    const done = await copyText(element.value ?? element.textContent);
    button.textContent = done ? "Copied" : "Select it and copy by hand";
    setTimeout(() => { button.textContent = word; }, 2000);
  });
}

function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
