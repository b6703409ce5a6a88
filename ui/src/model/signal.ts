// A value that is watched.
import { useEffect, useState } from "preact/hooks";

export class Signal<T> {
  private readonly watchers = new Set<() => void>();
  private current: T;

  constructor(value: T) {
    this.current = value;
  }

  get value(): T {
    return this.current;
  }

  set value(value: T) {
    if (Object.is(value, this.current)) return;
    this.current = value;
    for (const watcher of [...this.watchers]) watcher();
  }

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }
}

/** The value, and a new drawing whenever it is another. */
export function useSignal<T>(signal: Signal<T>): T {
  const [, again] = useState(0);
  useEffect(() => {
    const seen = signal.value;
    const stop = signal.watch(() => again((count) => count + 1));
    if (!Object.is(seen, signal.value)) again((count) => count + 1);
    return stop;
  }, [signal]);
  return signal.value;
}
