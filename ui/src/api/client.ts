// The API's client: one function for each route that the page uses.
import type {
  ApiError, AuditDropped, AuditEntry, Change, Compatible, Drift, Finding, Intent, Inventory, Options, Orphan, Partition,
  Plan, Spec, Statistics, WhoAmI,
} from "./types.ts";

/** An answer that is no success. `status` 0: there was no answer at all. */
export class Problem extends Error {
  readonly status: number;
  readonly error: ApiError;

  constructor(status: number, error: ApiError) {
    super(error.message);
    this.status = status;
    this.error = error;
  }

  /** The daemon is older than the route. */
  get isUnknownRoute(): boolean {
    return this.status === 404 || this.status === 405;
  }
}

/** The error of an answer, whichever way it is written. */
async function problemOf(answer: Response): Promise<Problem> {
  const text = await answer.text().catch(() => "");
  try {
    const body = JSON.parse(text) as { error?: ApiError; detail?: string; title?: string };
    if (body.error?.message) return new Problem(answer.status, body.error);
    const message = body.detail ?? body.title ?? `the answer was ${answer.status}`;
    return new Problem(answer.status, { kind: "failed", message });
  } catch {
    return new Problem(answer.status, { kind: "failed", message: text.slice(0, 300) || `the answer was ${answer.status}` });
  }
}

export async function request(method: string, path: string, body?: unknown, headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Response> {
  const init: RequestInit = { method, headers: { ...headers }, cache: "no-store", signal: signal ?? null };
  if (body instanceof Uint8Array) {
    init.body = body as Uint8Array<ArrayBuffer>;
    init.headers = { "content-type": "application/octet-stream", ...headers };
  } else if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "content-type": "application/json", ...headers };
  }
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Problem(0, { kind: "failed", message: "The management partition does not answer." });
  }
  if (!answer.ok && answer.status !== 304) throw await problemOf(answer);
  return answer;
}

async function json<T>(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<T> {
  return (await request(method, path, body, headers)).json() as Promise<T>;
}

const at = encodeURIComponent;

/** What an answer was told to be, so that the same need not be sent again. */
let hostTag: string | null = null;
let hostNow: Inventory | null = null;

export const api = {
  async host(): Promise<Inventory> {
    const answer = await request("GET", "/v1/host", undefined, hostTag ? { "if-none-match": hostTag } : {});
    if (answer.status === 304 && hostNow) return hostNow;
    hostNow = (await answer.json()) as Inventory;
    hostTag = answer.headers.get("etag");
    return hostNow;
  },
  async partitions(): Promise<Partition[]> {
    const all: Partition[] = [];
    let path: string | null = "/v1/partitions";
    while (path) {
      const answer: Response = await request("GET", path);
      all.push(...((await answer.json()) as Partition[]));
      path = next(answer.headers.get("link"));
    }
    return all;
  },
  spec: () => json<Spec>("GET", "/v1/spec"),
  wantedSpec: () => json<Spec>("GET", "/v1/spec?wanted=true"),
  drift: () => json<Drift[]>("GET", "/v1/drift"),
  orphans: () => json<Orphan[]>("GET", "/v1/orphans"),
  reap: () => json<Orphan[]>("POST", "/v1/orphans/reap"),
  changes: () => json<Change[]>("GET", "/v1/changes"),
  change: (id: string) => json<Change>("GET", `/v1/changes/${at(id)}`),
  cancel: (id: string) => json<Change>("DELETE", `/v1/changes/${at(id)}`),
  compatible: (spec: Spec, partition: string) => json<Compatible[]>("POST", "/v1/compatible", { spec, partition }),
  plan: (intent: Intent, options: Options = {}) => json<Plan>("POST", "/v1/plan", { ...intent, options }),
  /** The key makes a second sending of the same request harmless. */
  begin: (plan: Plan) => json<Change>("POST", "/v1/changes", { plan }, { "idempotency-key": crypto.randomUUID() }),
  doctor: () => json<{ able: boolean; findings: Finding[] }>("GET", "/v1/doctor"),
  whoami: () => json<WhoAmI>("GET", "/v1/whoami"),
  statistics: (pf: string, index: number) => json<Statistics>("GET", `/v1/adapters/${at(pf)}/vfs/${index}/statistics`),
  operate: (pf: string, index: number, operation: unknown) =>
    json<unknown>("POST", `/v1/adapters/${at(pf)}/vfs/${index}/operations`, operation),
  consoleOf: (partition: string) => `/v1/partitions/${at(partition)}/console`,
  async type(partition: string, text: string): Promise<void> {
    await request("POST", this.consoleOf(partition), new TextEncoder().encode(text));
  },
  async audit(): Promise<(AuditEntry | AuditDropped)[]> {
    const text = await (await request("GET", "/v1/audit")).text();
    return text.split("\n").filter(Boolean).map((line) => JSON.parse(line) as AuditEntry | AuditDropped);
  },
};

/** The address of the next page, by a Link header (RFC 8288). */
function next(header: string | null): string | null {
  const found = header?.match(/<([^>]*)>\s*;[^,]*rel="?next"?/);
  const path = found?.[1];
  return path?.startsWith("/v1/") ? path : null;
}
