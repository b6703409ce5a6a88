// Builds the page aside, and holds it against ui/dist: what is committed is what the sources give. Compressed files are compared by
// what is in them: how they are compressed is Node's business.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";

const ui = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");
const aside = mkdtempSync(path.join(os.tmpdir(), "ioward-page-"));
/** What is in the files of a folder, by name. */
const contents = (folder) =>
  new Map(
    readdirSync(folder).map((name) => {
      const content = readFileSync(path.join(folder, name));
      return name.endsWith(".gz") ? [name.slice(0, -3), gunzipSync(content)] : [name, content];
    }),
  );
try {
  execFileSync("npx", ["tsc", "--noEmit"], { cwd: ui, stdio: "inherit" });
  const words = ["vite", "build", "--logLevel", "warn", "--emptyOutDir", "--outDir", aside];
  execFileSync("npx", words, { cwd: ui, stdio: "inherit" });
  execFileSync(process.execPath, [path.join(ui, "build/compress.mjs"), aside], { stdio: "inherit" });
  const [built, committed] = [contents(aside), contents(path.join(ui, "dist"))];
  const differs = [...new Set([...built.keys(), ...committed.keys()])].filter(
    (name) => !built.get(name)?.equals(committed.get(name) ?? Buffer.alloc(0)),
  );
  if (differs.length > 0) {
    console.error(`ui/dist is not what the sources give: ${differs.sort().join(", ")}; run: cargo xtask ui`);
    process.exitCode = 1;
  }
} finally {
  rmSync(aside, { recursive: true, force: true });
}
