// What a guest may change, as one line of text: mac, reset, vlan=100-110, max_tx_rate<=500Mbit.
import type { GuestMay } from "../api/types.ts";

export function guestMayText(may: GuestMay | undefined): string {
  if (!may) return "";
  if (Array.isArray(may)) return may.join("; ");
  return Object.entries(may)
    .filter(([, value]) => value !== false)
    .map(([name, value]) => (value === true ? name : `${name}=${value}`))
    .join("; ");
}

/** The daemon says what is wrong with a value. */
export function guestMayOf(text: string): GuestMay {
  const may: Record<string, boolean | string> = {};
  for (const part of text.split(";").map((one) => one.trim()).filter(Boolean)) {
    const at = part.indexOf("=");
    if (at < 0) may[part] = true;
    // `max_tx_rate<=500Mbit` is the same as `max_tx_rate=<=500Mbit`.
    else if (part[at - 1] === "<") may[part.slice(0, at - 1).trim()] = part.slice(at - 1).trim();
    else may[part.slice(0, at).trim()] = part.slice(at + 1).trim();
  }
  return may;
}
