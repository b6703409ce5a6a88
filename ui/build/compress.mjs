// Leaves the scripts and styles of dist/ (or the folder given) compressed only: the binary holds them so. The same input gives the same bytes.
// Adds the licences of what is in them. Fails when the script that every view needs is over its bound, or a licence is new.
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

/** Bytes, compressed, of all scripts but the console's. */
const BOUND = 150_000;
const LICENCES = ["MIT"];
const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");
const dist = process.argv[2] ?? path.join(root, "dist");
let script = 0;
for (const name of readdirSync(dist).filter((one) => /\.(js|css)$/.test(one))) {
  const packed = gzipSync(readFileSync(path.join(dist, name)), { level: 9 });
  // The system that it was made on is in byte 9, and means nothing.
  packed[9] = 255;
  writeFileSync(path.join(dist, `${name}.gz`), packed);
  rmSync(path.join(dist, name));
  if (name.endsWith(".js") && name !== "terminal.js") script += packed.length;
}
const lock = JSON.parse(readFileSync(path.join(root, "package-lock.json"), "utf8"));
const inPage = Object.entries(lock.packages).filter(([name, one]) => name.startsWith("node_modules/") && !one.dev && !one.devOptional && !one.optional);
const texts = inPage.map(([folder, one]) => {
  const name = folder.replace("node_modules/", "");
  if (!LICENCES.includes(one.license)) throw new Error(`${name} has the licence ${one.license}, which is none of ${LICENCES}`);
  return `${name} ${one.version}\n\n${readFileSync(path.join(root, folder, "LICENSE"), "utf8").trim()}\n`;
});
writeFileSync(path.join(dist, "licences.txt"), texts.join(`\n${"-".repeat(72)}\n\n`));
console.log(`script without the console: ${script} bytes compressed`);
if (script > BOUND) throw new Error(`that is over ${BOUND}`);
