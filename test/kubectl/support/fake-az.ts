/** An `az` that records its input: the plugin prints lines for it, and runs none. */
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { ok } from './recorded-kubectl.ts';

const subscription = '0b1f6471-1bf0-4dda-aec3-cb9272f09590';
export const ordersId = `/subscriptions/${subscription}/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders`;
export const tenant = '7e570000-1ab0-4000-8000-000000000001';

export type FakeAz = ReturnType<typeof createFakeAz>;

export function createFakeAz() {
  const lines: string[] = [];

  function run(args: readonly string[]): ProgramRun {
    lines.push(args.join(' '));
    return ok('{}\n');
  }
  return { run, lines };
}
