// Debian's Cockpit, unpacked into a folder and not installed, with the page as ioward's package has it: for a test's browser, which logs
// in by a password of this run's. Whoever is logged in has the rights of whoever runs the tests, so nobody else may be.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

export class Cockpit {
  /** Both folders are roots of unpacked packages. */
  constructor({ cockpit, ioward, socket }) {
    this.folder = mkdtempSync(path.join(os.tmpdir(), "ioward-cockpit-"));
    this.authorization = `Basic ${Buffer.from(`user:${randomBytes(24).toString("hex")}`).toString("base64")}`;
    this.cockpit = cockpit;
    const page = path.join(this.folder, "data/cockpit/ioward");
    cpSync(path.join(ioward, "usr/share/cockpit/ioward"), page, { recursive: true });
    // Nothing is installed: these two are elsewhere than the package has them.
    replace(path.join(page, "transport.js"), '"/run/ioward/api.sock"', JSON.stringify(socket));
    replace(path.join(page, "manifest.json"), '"/usr/bin/ioward"', JSON.stringify(path.join(ioward, "usr/bin/ioward")));
  }

  async start() {
    const port = await freePort();
    const found = (name) => [path.join(this.cockpit, name), path.join("/", name)].find((one) => existsSync(one));
    // In the place of PAM: Cockpit's protocol on stdin and stdout, each message after its length.
    const session = path.join(this.folder, "session");
    writeFileSync(session, [
      "#!/bin/bash",
      `asked=$'\\n{"command":"authorize","cookie":"1","challenge":"*"}'`,
      `printf '%d\\n%s' "\${#asked}" "$asked"`,
      "read -r length && read -r -N \"$length\" -d '' answer || exit",
      `[[ $answer == *'"response":"${this.authorization}"'* ]] || exit`,
      `exec '${found("usr/bin/cockpit-bridge")}'`,
      "",
    ].join("\n"), { mode: 0o700 });
    mkdirSync(path.join(this.folder, "etc/cockpit"), { recursive: true });
    writeFileSync(path.join(this.folder, "etc/cockpit/cockpit.conf"), `[Basic]\nCommand = ${session}\n`);
    this.server = spawn(found("usr/lib/cockpit/cockpit-ws"), ["--no-tls", "--address", "127.0.0.1", "--port", String(port)], {
      stdio: ["ignore", "ignore", "pipe"],
      env: {
        PATH: process.env.PATH,
        HOME: this.folder,
        LANG: "C.UTF-8",
        LD_LIBRARY_PATH: path.join(this.cockpit, "usr/lib/x86_64-linux-gnu"),
        XDG_CONFIG_DIRS: path.join(this.folder, "etc"),
        XDG_DATA_DIRS: `${path.join(this.cockpit, "usr/share")}:/usr/share`,
        XDG_DATA_HOME: path.join(this.folder, "data"),
      },
    });
    // Where there is no systemd, there is much that Cockpit misses.
    let said = "";
    this.server.stderr.on("data", (part) => (said = (said + part).slice(-20_000)));
    this.ended = new Promise((resolve) => this.server.once("exit", resolve));
    this.address = `http://127.0.0.1:${port}`;
    const gone = this.ended.then((status) => Promise.reject(new Error(`cockpit-ws ended with status ${status}, and said: ${said}`)));
    gone.catch(() => {});
    await Promise.race([answers(port), gone]);
  }

  /** Gives a browser its session. */
  async logIn(context) {
    const answer = await context.request.get(`${this.address}/cockpit/login`, { headers: { authorization: this.authorization } });
    if (!answer.ok()) throw new Error(`Cockpit lets nobody in: ${answer.status()} ${await answer.text()}`);
  }

  async end() {
    this.server?.kill("SIGTERM");
    await this.ended;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function replace(file, what, by) {
  const parts = readFileSync(file, "utf8").split(what);
  if (parts.length !== 2) throw new Error(`${file} has ${what} ${parts.length - 1} times, and not once`);
  writeFileSync(file, parts.join(by));
}

/** One that was free a moment ago. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on("error", reject).listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function answers(port) {
  for (;;) {
    const open = await new Promise((resolve) => {
      const socket = net.connect(port, "127.0.0.1");
      socket.on("connect", () => resolve(true)).on("error", () => resolve(false)).on("connect", () => socket.end());
    });
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
