/**
 * Azure in memory behind an `az` that records its input and answers in the words of the real one.
 */
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { failed, ok } from './recorded-kubectl.ts';

export const subscription = '0b1f6471-1bf0-4dda-aec3-cb9272f09590';
export const ordersId = `/subscriptions/${subscription}/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders`;
export const tenant = '7e570000-1ab0-4000-8000-000000000001';

interface AzureState {
  /** Client ids by resource id. */
  readonly identities: Readonly<Record<string, string>>;
  readonly isLoggedIn?: boolean;
}

export type FakeAz = ReturnType<typeof createFakeAz>;

export function createFakeAz({ identities, isLoggedIn = true }: AzureState) {
  const lines: string[] = [];

  function run(args: readonly string[]): ProgramRun {
    const line = args.join(' ');
    lines.push(line);
    if (!isLoggedIn) return failed("ERROR: Please run 'az login' to setup account.\n");
    if (line.startsWith('identity show')) {
      const id = args[args.indexOf('--ids') + 1] ?? '';
      const clientId = identities[id];
      if (clientId === undefined) {
        return {
          ...failed(
            `ERROR: (ResourceNotFound) The Resource '${id}' under resource group 'shop' was not found.\n`,
          ),
          code: 3,
        };
      }
      return ok(
        JSON.stringify({
          clientId,
          id,
          principalId: 'p',
          tenantId: tenant,
          type: 'Microsoft.ManagedIdentity/userAssignedIdentities',
        }),
      );
    }
    return ok('{}\n');
  }
  return { run, lines };
}
