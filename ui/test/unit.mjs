// Runs the unit tests: esbuild's successor in Vite takes the types out, then node runs what is left.
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.join(here, ".unit");
const tests = readdirSync(path.join(here, "unit")).filter((name) => name.endsWith(".test.ts"));
await build({
  root: here,
  configFile: false,
  logLevel: "warn",
  build: {
    ssr: true,
    outDir: out,
    emptyOutDir: true,
    rollupOptions: {
      input: Object.fromEntries(tests.map((name) => [name.replace(/\.ts$/, ""), path.join(here, "unit", name)])),
      output: { entryFileNames: "[name].mjs" },
    },
  },
});
const ran = spawnSync(process.execPath, ["--test", ...tests.map((name) => path.join(out, name.replace(/\.ts$/, ".mjs")))], { stdio: "inherit" });
rmSync(out, { recursive: true, force: true });
process.exit(ran.status ?? 1);
