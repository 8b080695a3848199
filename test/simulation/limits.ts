/** Times and limits that hold in every run. */

/** When a run began, by the wall clock. */
export const epochMs = Date.UTC(2026, 0, 1);

/**
 * What a process of the agent and a kernel keep at most. In 400 runs they had up to 146 sockets, 6 files, 86
 * timers and 178 records.
 */
export const most = { sockets: 400, descriptors: 16, timers: 400, records: 500 } as const;

/** The longest freeze of a process, and how late an event, the memory of an API server and a packet are at most. */
export const longestMs = { freeze: 6_000, event: 4_000, memory: 4_000, packet: 1_500 } as const;

/** A process that has come up and then runs undisturbed serves within this time. */
export const livenessMs = 30_000;
