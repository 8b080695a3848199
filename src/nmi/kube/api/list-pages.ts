/** A whole collection, page by page. */
import type { RequestOptions } from './client.ts';
import { asRecord, stringAt } from '../../../base/json-value.ts';
import { KubeError } from './kube-error.ts';
import { versionOf } from './watch-event.ts';

export interface ListRequest {
  /** Collection path without query. */
  readonly path: string;
  /** Selectors. */
  readonly query: Readonly<Record<string, string>>;
  /** Items per page; 0 requests everything at once. */
  readonly pageSize: number;
  /**
   * Empty: the newest state, read through to the server's storage. `0`: any state that the server
   * has in memory, which for pods of one node is an indexed lookup instead of a scan of the
   * cluster's pods.
   */
  readonly version: string;
}

/** Client for lists and watches, such as `KubeClient`. */
export interface JsonReader {
  getJson(path: string, options?: RequestOptions): Promise<unknown>;
}

/** For one page: more than a list of 20,000 objects in one piece. */
const maxPageBytes = 32 * 1024 * 1024;
const largestPage = 500;

/**
 * Passes each page's raw items to `onItems` and resolves to the version of the whole list. A page
 * that is too large is requested again with a tenth of the items: a page of one item always fits.
 * Rejects with `KubeError`: GONE if the server dropped the snapshot between two pages.
 */
export async function listPages(
  reader: JsonReader,
  list: ListRequest,
  options: RequestOptions,
  onItems: (items: readonly unknown[]) => void,
): Promise<string> {
  let continueToken = '';
  let size: Pick<ListRequest, 'pageSize' | 'version'> = list;

  async function readPage(): Promise<unknown> {
    for (;;) {
      try {
        const path = pagePath({ ...list, ...size }, continueToken);
        return await reader.getJson(path, { ...options, maxBytes: maxPageBytes });
      } catch (error) {
        const isTooLarge = error instanceof KubeError && error.code === 'TOO_LARGE';
        if (!isTooLarge || size.pageSize === 1) throw error;
        // Servers ignore the limit for lists from memory.
        size = { pageSize: Math.ceil((size.pageSize || largestPage * 10) / 10), version: '' };
      }
    }
  }

  do {
    const page = asRecord(await readPage());
    const items = page?.['items'];
    const version = versionOf(page);
    // Go encodes a nil slice as null.
    const none = items === null || items === undefined;
    if (version === '' || !(none || Array.isArray(items))) {
      throw new KubeError('MALFORMED', `the answer to ${list.path} is not a list`);
    }
    onItems(none ? [] : items);
    continueToken = stringAt(asRecord(page?.['metadata']), 'continue');
    if (continueToken === '') return version;
  } while (options.signal?.aborted !== true);
  throw options.signal.reason;
}

function pagePath(list: ListRequest, continueToken: string): string {
  const query = new URLSearchParams(list.query);
  if (list.pageSize > 0) query.set('limit', String(list.pageSize));
  // The two exclude each other: a continue token contains its version.
  if (continueToken !== '') query.set('continue', continueToken);
  else if (list.version !== '') query.set('resourceVersion', list.version);
  const text = query.toString();
  return text === '' ? list.path : `${list.path}?${text}`;
}
