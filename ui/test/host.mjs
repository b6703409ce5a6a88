// A daemon on the simulated machine, and the page for as many browsers as there are: `ioward ui` for each, or the proxy
// for work on the page where that command is not built yet.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const program = process.env.IOWARD ?? path.join(here, "../../target/debug/ioward");

export class Host {
  constructor() {
    this.folder = mkdtempSync(path.join(os.tmpdir(), "ioward-page-"));
    this.socket = path.join(this.folder, "api.sock");
    this.pages = [];
  }

  /** Starts the daemon; another seed is another run of it. */
  async start(seed = 1) {
    const words = ["demo", "--serve", "--yes", "--foreign", "--seed", String(seed), "--socket", this.socket];
    this.daemon = spawn(program, words, { stdio: ["ignore", "pipe", "inherit"] });
    // It has done the main job before it says where it is found.
    await said(this.daemon, /It stays up|http:\/\//);
  }

  /** Ends the daemon, with its partitions. */
  async stop() {
    const ended = new Promise((resolve) => this.daemon.once("exit", resolve));
    this.daemon.kill("SIGTERM");
    await ended;
  }

  /** An address for one more browser. */
  async address() {
    const known = spawnSync(program, ["ui", "--help"]).status === 0;
    const page = known
      ? spawn(program, ["--socket", this.socket, "ui"], { stdio: ["ignore", "pipe", "inherit"] })
      : spawn(process.execPath, [path.join(here, "../dev/proxy.mjs"), this.socket], { stdio: ["ignore", "pipe", "inherit"] });
    this.pages.push(page);
    return (await said(page, /http:\/\/\S+/))[0];
  }

  /** Asks the daemon, past the page. */
  get(name) {
    return new Promise((resolve, reject) => {
      http.get({ socketPath: this.socket, path: name, headers: { host: "ioward" } }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (part) => (text += part)).on("end", () => resolve(JSON.parse(text)));
      }).on("error", reject);
    });
  }

  async end() {
    for (const page of this.pages) page.kill("SIGTERM");
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** What a program says on its stdout, as soon as it matches. */
export function said(process, pattern) {
  return new Promise((resolve, reject) => {
    let text = "";
    process.stdout.on("data", (part) => {
      text = (text + part).slice(-20_000);
      const found = pattern.exec(text);
      if (found) resolve(found);
    });
    process.once("exit", (status) => reject(new Error(`it ended with status ${status} and had said: ${text}`)));
  });
}
