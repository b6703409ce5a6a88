// The page's beginning: the token of its address is changed for a session, then the host is followed.
import { render } from "preact";
import { App } from "./app.tsx";
import { request, Problem } from "./api/client.ts";
import { start, store } from "./model/store.ts";
import "./styles/base.css";
import "./styles/machine.css";
import "./styles/views.css";

async function begin(): Promise<void> {
  const token = /^#token=(.+)$/.exec(location.hash)?.[1];
  let session: Problem | null = null;
  if (token) {
    // It is good once, and nothing is to keep it.
    history.replaceState(null, "", location.pathname);
    try {
      await request("POST", "/session", { token });
    } catch (error) {
      session = error instanceof Problem ? error : null;
    }
  }
  const stream = start();
  if (session) store.trouble.value = session;
  const page = document.getElementById("page");
  if (page) render(<App retry={() => stream.retry()} />, page);
}

void begin();
