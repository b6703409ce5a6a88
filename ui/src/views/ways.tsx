// What would have to give way, as a button where one click can do it.
import type { Options, Way } from "../api/types.ts";
import { isAdministrator } from "../model/store.ts";

const OPTION: Record<string, keyof Options> = { "allow-disruption": "allow_disruption", "allow-management-nic": "allow_management_nic" };

/** A button for a way that consists of options alone. */
export function optionFor(way: Way, options: Options, setOptions: (options: Options) => void) {
  const names = way.gives.map((give) => OPTION[give.relaxation]);
  if (names.some((name) => name === undefined)) return null;
  if (names.includes("allow_management_nic") && !isAdministrator()) return <span class="quiet">an administrator can</span>;
  const allowed = { ...options };
  for (const name of names) if (name) allowed[name] = true;
  return <button type="button" class="small" onClick={() => setOptions(allowed)}>Allow it</button>;
}
