// Serves dist/ on loopback and passes /v1 and /metrics on to the daemon's Unix socket, as `ioward ui` does, for work on
// the page: node dev/proxy.mjs SOCKET [PORT]. It asks for no token; use it on a machine of your own.
import { createReadStream, existsSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

const socket = process.argv[2] ?? "/run/ioward/api.sock";
const port = Number(process.argv[3] ?? 0);
const dist = path.join(path.dirname(fileURLToPath(import.meta.url)), "../dist");
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

function passOn(request, response) {
  const { method, url, headers } = request;
  const to = http.request({ socketPath: socket, method, path: url, headers: { ...headers, host: "ioward" } }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    // A stream may have nothing to say for long.
    response.flushHeaders();
    answer.pipe(response);
    answer.on("error", () => response.destroy());
  });
  to.on("error", () => {
    if (response.headersSent) return response.destroy();
    response.writeHead(502, { "content-type": "application/problem+json" });
    response.end(JSON.stringify({ title: "No daemon", status: 502, detail: `nobody answers at ${socket}` }));
  });
  response.on("close", () => to.destroy());
  request.pipe(to);
}

const server = http.createServer((request, response) => {
  const name = new URL(request.url, "http://x").pathname;
  if (name.startsWith("/v1/") || name === "/metrics") return passOn(request, response);
  if (name === "/session") return response.writeHead(204).end();
  const file = path.join(dist, name === "/" ? "index.html" : path.normalize(name));
  const stored = [file, `${file}.gz`].find((one) => existsSync(one));
  if (!file.startsWith(dist) || !stored) return response.writeHead(404).end("not here\n");
  const type = types[path.extname(file)] ?? "application/octet-stream";
  const packed = stored === file ? {} : { "content-encoding": "gzip" };
  response.writeHead(200, { "content-type": `${type}; charset=utf-8`, "content-security-policy": policy, ...packed });
  createReadStream(stored).pipe(response);
});
server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
