// In Cockpit, what the page asks the API for goes through Cockpit's bridge to the daemon's socket, with the rights of
// whoever is logged in there (root's, where administrative access is on). The page itself knows nothing of that: it calls fetch.
"use strict";
(() => {
  const SOCKET = "/run/ioward/api.sock";
  const browserFetch = window.fetch.bind(window);

  function throughBridge(path, init) {
    const headers = {};
    new Headers(init.headers).forEach((value, name) => { headers[name] = value; });
    return new Promise((resolve, reject) => {
      // One connection for each request, as the page's streams have no end.
      const channel = cockpit.channel({
        payload: "http-stream2", unix: SOCKET, superuser: "try", binary: true,
        method: init.method ?? "GET", path, headers,
      });
      let body = null;
      let closed = false;
      const failed = (why) => {
        const error = new TypeError(why);
        if (body) body.error(error);
        else reject(error);
      };
      const give_up = () => {
        if (closed) return;
        closed = true;
        channel.close("cancelled");
        failed("cancelled");
      };
      channel.addEventListener("control", (_event, message) => {
        if (message.command !== "response") return;
        const { status, reason, headers: received } = message;
        const empty = status === 204 || status === 205 || status === 304;
        const stream = new ReadableStream({ start: (controller) => { body = controller; }, cancel: give_up });
        resolve(new Response(empty ? null : stream, { status, statusText: reason, headers: received }));
      });
      channel.addEventListener("message", (_event, data) => { if (!closed) body?.enqueue(new Uint8Array(data)); });
      channel.addEventListener("close", (_event, { problem, message }) => {
        if (closed) return;
        closed = true;
        init.signal?.removeEventListener("abort", give_up);
        if (problem || !body) failed(message || problem || "the connection was closed");
        else body.close();
      });
      init.signal?.addEventListener("abort", give_up);
      const sent = typeof init.body === "string" ? new TextEncoder().encode(init.body) : init.body;
      if (sent?.length) channel.send(sent);
      channel.control({ command: "done" });
      if (init.signal?.aborted) give_up();
    });
  }

  window.fetch = (resource, init = {}) => {
    const isApi = typeof resource === "string" && (resource.startsWith("/v1/") || resource === "/metrics");
    return isApi ? throughBridge(resource, init) : browserFetch(resource, init);
  };
})();
