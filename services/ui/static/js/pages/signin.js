// Sign in with an API key.
import { h } from "../dom.js";
import { param } from "../address.js";
import { field } from "../controls.js";

function next() {
  const wanted = new URL(param("next") ?? "/", location.origin);
  return wanted.origin === location.origin ? wanted.href : "/";
}

export async function page(main) {
  // A link on another site brings no SameSite=Strict cookie along, but this request does: whoever is signed in goes on at once.
  if (!param("ended")) {
    const answer = await fetch("/api/v1/key").catch(() => null);
    if (answer?.ok) return location.replace(next());
  }
  const key = field("API key", h("input", { name: "key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false", autofocus: true }), {
    hint: "On the machine that runs `nanochat up`, the first key is in .nanochat/keys/admin.key. An admin makes others: nanochat keys make NAME.",
  });
  const go = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h("form", null, key, go);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    key.wrong(null);
    try {
      const secret = key.input.value.trim();
      if (!secret) return key.wrong("Enter a key.");
      if (!/^[\x21-\x7e]{1,200}$/.test(secret)) return key.wrong("This has characters that no key has.");
      const answer = await fetch("/signin", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: secret }) });
      if (answer.ok) return location.replace(next());
      key.wrong((await answer.json().catch(() => null))?.detail ?? "The key was not accepted.");
    } catch {
      key.wrong("The dashboard's server does not answer.");
    } finally {
      go.disabled = false;
    }
  });
  main.append(
    h("div", { class: "signin" }, h("h1", null, "Sign in"),
      param("ended") && h("p", { class: "notice warn" }, "Your session has ended, or your key is no longer valid."), form),
  );
  key.input.focus();
}
