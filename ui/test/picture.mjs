// The pictures of docs/screenshots.
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const folder = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../docs/screenshots");

/** Keeps what a page looks like. */
export async function picture(page, name) {
  mkdirSync(folder, { recursive: true });
  // What comes by itself, as traffic, is given a moment.
  await page.waitForTimeout(600);
  const file = path.join(folder, `${name}.png`);
  await page.screenshot({ path: file });
  // 64 colours do, at a third of the size.
  spawnSync("pngquant", ["--force", "--ext", ".png", "--speed", "1", "64", file]);
}
