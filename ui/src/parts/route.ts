// Which view is shown, by the fragment of the address: #/choose?partition=web.
import { Signal } from "../model/signal.ts";

export const VIEWS = [
  { id: "machine", title: "Machine" },
  { id: "choose", title: "Choose" },
  { id: "partitions", title: "Partitions" },
  { id: "history", title: "What happened" },
  { id: "health", title: "Health" },
] as const;

export type View = (typeof VIEWS)[number]["id"];

export interface Route {
  view: View;
  query: URLSearchParams;
}

function parse(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const view = VIEWS.find((one) => one.id === path)?.id ?? "machine";
  return { view, query: new URLSearchParams(query) };
}

export const route = new Signal<Route>(parse());
addEventListener("hashchange", () => (route.value = parse()));

export function linkTo(view: View, query: Record<string, string> = {}): string {
  const text = new URLSearchParams(query).toString();
  return `#/${view}${text ? `?${text}` : ""}`;
}
