// Specs as TOML, written and read: as much of TOML as a Spec can have. What is wrong with a value is the daemon's to say.
import type { Spec } from "../api/types.ts";

const bare = /^[A-Za-z0-9_-]+$/;
const keyText = (key: string): string => (bare.test(key) ? key : JSON.stringify(key));

function valueText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(valueText).join(", ")}]`;
  if (value && typeof value === "object") {
    const pairs = Object.entries(value).filter(([, one]) => one !== undefined && one !== null);
    return `{ ${pairs.map(([key, one]) => `${keyText(key)} = ${valueText(one)}`).join(", ")} }`;
  }
  return JSON.stringify(value);
}

function table(header: string, entries: object, without: string[]): string {
  const lines = Object.entries(entries).filter(
    ([key, value]) => !without.includes(key) && value !== undefined && value !== null && !isEmptyTable(value),
  );
  return `\n[[${header}]]\n${lines.map(([key, value]) => `${keyText(key)} = ${valueText(value)}\n`).join("")}`;
}

const isEmptyTable = (value: unknown): boolean => typeof value === "object" && value !== null && Object.keys(value).length === 0;

export function toToml(spec: Spec): string {
  let text = `version = ${spec.version}\n`;
  for (const adapter of spec.adapter ?? []) text += table("adapter", adapter, []);
  for (const partition of spec.partition ?? []) {
    text += table("partition", partition, ["vf"]);
    for (const vf of partition.vf ?? []) text += table("partition.vf", vf, []);
  }
  return text;
}

type Table = { [key: string]: unknown };

/** Reads a Spec's text. Throws an Error that names the line. */
export function fromToml(text: string): Spec {
  return new Reader(text).document() as unknown as Spec;
}

class Reader {
  private at = 0;
  private readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  document(): Table {
    const root: Table = Object.create(null) as Table;
    let current = root;
    for (;;) {
      this.blank(true);
      if (this.at >= this.text.length) return root;
      if (this.takes("[[")) {
        current = this.header("]]", root, true);
      } else if (this.takes("[")) {
        current = this.header("]", root, false);
      } else {
        this.pair(current);
      }
      this.blank(false);
      if (this.at < this.text.length && !this.takes("\n")) throw this.wrong("the end of the line");
    }
  }

  private header(close: string, root: Table, list: boolean): Table {
    const keys = this.keys();
    if (!this.takes(close)) throw this.wrong(`'${close}'`);
    const last = keys.pop() as string;
    const parent = this.within(root, keys);
    if (!list) return this.within(parent, [last]);
    const all = (parent[last] ??= []) as unknown;
    if (!Array.isArray(all)) throw this.wrong(`no list at '${last}'; it is something else already`);
    const made = Object.create(null) as Table;
    all.push(made);
    return made;
  }

  /** The table at these keys; of a list, its latest. */
  private within(table: Table, keys: string[]): Table {
    for (const key of keys) {
      const next = (table[key] ??= Object.create(null) as Table) as unknown;
      const found: unknown = Array.isArray(next) ? next.at(-1) : next;
      if (typeof found !== "object" || found === null) throw this.wrong(`a table at '${key}'`);
      table = found as Table;
    }
    return table;
  }

  private pair(table: Table): void {
    const keys = this.keys();
    if (!this.takes("=")) throw this.wrong("'='");
    this.blank(false);
    const last = keys.pop() as string;
    const within = this.within(table, keys);
    if (last in within) throw this.wrong(`'${last}' only once`);
    within[last] = this.value();
  }

  private keys(): string[] {
    const keys: string[] = [];
    do {
      this.blank(false);
      const quoted = this.peek() === '"' || this.peek() === "'";
      const key = quoted ? this.string() : this.match(/[A-Za-z0-9_-]+/y);
      if (key === null) throw this.wrong("a key");
      keys.push(key);
      this.blank(false);
    } while (this.takes("."));
    return keys;
  }

  private value(): unknown {
    const next = this.peek();
    if (next === '"' || next === "'") return this.string();
    if (this.takes("[")) return this.list("]", () => this.value());
    if (this.takes("{")) {
      const table = Object.create(null) as Table;
      this.list("}", () => this.pair(table));
      return table;
    }
    const word = this.match(/[A-Za-z0-9_+.-]+/y);
    if (word === "true" || word === "false") return word === "true";
    if (word && /^[+-]?\d[\d_]*$/.test(word)) return Number(word.replaceAll("_", ""));
    throw this.wrong("a value: a text in quotes, a whole number, true, false, a list or a table");
  }

  private list<T>(close: string, one: () => T): T[] {
    const all: T[] = [];
    for (;;) {
      this.blank(true);
      if (this.takes(close)) return all;
      all.push(one());
      this.blank(true);
      if (!this.takes(",") && this.peek() !== close) throw this.wrong(`',' or '${close}'`);
    }
  }

  private string(): string {
    const literal = this.match(/'[^'\n]*'/y);
    if (literal !== null) return literal.slice(1, -1);
    const basic = this.match(/"(?:[^"\\\n]|\\.)*"/y);
    if (basic === null) throw this.wrong("the end of a text in quotes");
    try {
      return JSON.parse(basic.replace(/\\U([0-9A-Fa-f]{8})/g, (_, code: string) => String.fromCodePoint(parseInt(code, 16))).replace(/\t/g, "\\t")) as string;
    } catch {
      throw this.wrong("a text that can be read; a backslash is written \\\\");
    }
  }

  private blank(lines: boolean): void {
    this.match(lines ? /(?:\s|#[^\n]*)*/y : /(?:[ \t\r]|#[^\n]*)*/y);
  }

  private peek(): string | undefined {
    return this.text[this.at];
  }

  private takes(what: string): boolean {
    if (!this.text.startsWith(what, this.at)) return false;
    this.at += what.length;
    return true;
  }

  private match(pattern: RegExp): string | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (!found) return null;
    this.at += found[0].length;
    return found[0];
  }

  private wrong(expected: string): Error {
    const line = this.text.slice(0, this.at).split("\n").length;
    return new Error(`line ${line}: expected ${expected}`);
  }
}
