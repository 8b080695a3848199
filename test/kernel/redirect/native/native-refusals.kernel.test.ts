/**
 * Arguments that the native module refuses, and its errors when the kernel refuses, call by call.
 */
import assert from 'node:assert/strict';
import { closeSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { settingsOf } from '../../../../src/redirect/ebpf/settings.ts';
import { readPrograms } from '../../../../src/redirect/native/native-files.ts';
import {
  asRedirectError,
  isMissing,
  nativeModule,
  type BpfMap,
  type NativeModule,
  withMap,
} from '../../../../src/redirect/native/addon.ts';
import { RedirectError } from '../../../../src/redirect/redirect.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { attachTypes } from '../../../support/fake-kernel.ts';
import {
  openBpfFolder,
  openCgroupTree,
  whyNoBpfTests,
  type BpfFolder,
  type CgroupTree,
} from '../cgroup-fixture.ts';

const skip = whyNoBpfTests();

describe('the native module refuses', { skip }, () => {
  let native: NativeModule;
  /** The same module, typed for any number of arguments. */
  let counted: Readonly<Record<'mapKeys', (...all: unknown[]) => unknown>>;
  let bpf: BpfFolder;
  let tree: CgroupTree;
  const opened = new Map<string, BpfMap>();
  const names = ['callers', 'dials', 'counters', '.rodata.nmi'];

  before(() => {
    native = nativeModule();
    counted = native as unknown as typeof counted;
    bpf = openBpfFolder();
    tree = openCgroupTree();
    const object = readPrograms();
    const maps = Object.fromEntries(names.map((name, at) => [name, pin(`map${at}`)]));
    const programs = {
      nmi_connect4: pin('program'),
      nmi_connect6: pin('six'),
      nmi_sockops: pin('ops'),
    };
    native.load(object, settingsOf(object, defaultTarget, 2579), maps, programs);
    for (const [at, name] of names.entries())
      opened.set(name, native.openPin(pin(`map${at}`), false));
    native.attach(pin('program'), attachTypes.connect4, tree.path, pin('link'));
  });
  after(() => {
    for (const map of opened.values()) closeSync(map);
    bpf.close();
    tree.close();
  });

  const pin = (name: string) => join(bpf.path, name);
  const map = (name: string) => opened.get(name) ?? assert.fail(name);

  /** Code and step of a call that must fail, in the form that callers of the module get. */
  function failureOf(call: () => unknown): Pick<RedirectError, 'code' | 'step' | 'cause'> {
    try {
      call();
    } catch (error) {
      const known = asRedirectError(error);
      assert.ok(known instanceof RedirectError, String(error));
      const { code, step, cause } = known;
      return { code, step, cause };
    }
    return assert.fail('the call succeeded');
  }

  /** A value of another kind, against the types. */
  const as = (value: unknown): never => value as never;
  const noTexts: readonly unknown[] = [undefined, 1, {}, '', 'a\0', '/'.repeat(5000)];
  const noDescriptors: readonly unknown[] = [undefined, null, -1, 1.5, 'x', {}, () => undefined];

  const refusals: Readonly<Record<string, () => readonly (() => unknown)[]>> = {
    replace: () => [
      ...noTexts.map((wrong) => () => {
        native.replace(as(wrong), pin('link'));
      }),
      ...noTexts.map((wrong) => () => {
        native.replace(pin('program'), as(wrong));
      }),
    ],
    linkInfo: () => noTexts.map((wrong) => () => native.linkInfo(as(wrong))),
    mapDelete: () => [
      ...noDescriptors.map((wrong) => () => native.mapDelete(as(wrong), new Uint8Array(8))),
      ...[undefined, 'x'.repeat(8), {}, new Uint16Array(4)].map(
        (wrong) => () => native.mapDelete(map('callers'), as(wrong)),
      ),
    ],
  };
  for (const [name, calls] of Object.entries(refusals)) {
    it(`invalid arguments: ${name}`, () => {
      for (const [at, call] of calls().entries()) assert.throws(call, TypeError, `call ${at}`);
      // Nothing was changed, and the module still works.
      assert.equal(
        native.linkInfo(pin('link')).programId,
        native.linkInfo(pin('program')).programId,
      );
      assert.deepEqual(native.mapKeys(map('callers')), []);
    });
  }

  it('an argument by its number, and too many arguments', () => {
    const expected: readonly (readonly [call: () => unknown, message: RegExp])[] = [
      [() => native.openPin(pin('map0'), as(0)), /^openPin: argument 2 is wrong$/],
      [() => native.mapGet(map('callers'), as('x')), /^mapGet: argument 2 is wrong$/],
      [
        () => native.load(new Uint8Array(), new Uint8Array(), { a: '' }, {}),
        /^load: argument 3 is wrong$/,
      ],
      [() => counted.mapKeys(), /^mapKeys: argument 1 is wrong$/],
      [() => counted.mapKeys(map('callers'), 1), /^mapKeys: argument 2 is wrong$/],
    ];
    for (const [call, message] of expected) {
      assert.throws(call, { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE', message });
    }
  });

  it('pins that are missing or of another kind, by the step', () => {
    const calls: Readonly<Record<string, (path: string) => unknown>> = {
      replace: (path) => {
        native.replace(pin('program'), path);
      },
      linkInfo: (path) => native.linkInfo(path),
      openPin: (path) => native.openPin(path, true),
    };
    for (const [name, call] of Object.entries(calls)) {
      const missing = failureOf(() => call(pin('none')));
      assert.equal(missing.step, 'open pin', name);
      assert.ok(isMissing(missing.cause), name);
    }
    // A link and a program are opened for writing only, and what is asked of another kind of object is refused.
    for (const [call, step] of [
      [() => native.replace(pin('program'), pin('map0')), 'replace program'],
      [() => native.openPin(pin('link'), true), 'open pin'],
      [() => withMap(native, pin('program'), 'write', (no) => native.mapKeys(no)), 'read map'],
    ] as const) {
      assert.deepEqual(
        { ...failureOf(call), cause: 0 },
        { code: 'KERNEL_REFUSED', step, cause: 0 },
      );
    }
    assert.deepEqual(native.linkInfo(pin('program')).attachType, Number.NaN);
    assert.deepEqual(native.linkInfo(pin('map0')).programId, Number.NaN);
  });

  it('a program as replacement of one of another type, which stays', () => {
    const { programId } = native.linkInfo(pin('link'));
    const other = failureOf(() => {
      native.replace(pin('ops'), pin('link'));
    });
    assert.equal(other.step, 'replace program');
    assert.equal(other.code, 'KERNEL_REFUSED');
    assert.equal(native.linkInfo(pin('link')).programId, programId);
  });

  it('a program as replacement of one on a removed cgroup', async () => {
    const cgroup = tree.make('short');
    native.attach(pin('six'), attachTypes.connect6, cgroup, pin('detached'));
    rmdirSync(cgroup);
    await eventually(() => assert.equal(native.linkInfo(pin('detached')).cgroupId, 0n));
    const gone = failureOf(() => {
      native.replace(pin('six'), pin('detached'));
    });
    assert.equal(gone.step, 'replace program');
  });

  it('reading a map keyed by sockets with a key that is no socket', () => {
    const noSocket = new Uint8Array(new Int32Array([-1]).buffer);
    assert.equal(failureOf(() => native.mapGet(map('dials'), noSocket)).step, 'read map');
    // The map has entries for its sockets only.
    assert.deepEqual(native.mapKeys(map('dials')), []);
    assert.equal(failureOf(() => native.mapDelete(map('dials'), noSocket)).step, 'write map');
  });

  it('writing to a map that is open for reading, is frozen, or has no such entry', () => {
    const key = new Uint8Array(8);
    const readOnly = native.openPin(pin('map0'), true);
    try {
      for (const call of [
        () => {
          native.mapSet(readOnly, key, new Uint8Array(32));
        },
        () => native.mapDelete(readOnly, key),
      ]) {
        assert.deepEqual(
          { ...failureOf(call), cause: 0 },
          { code: 'NOT_PERMITTED', step: 'write map', cause: 0 },
        );
      }
      assert.equal(native.mapGet(readOnly, key), undefined);
    } finally {
      closeSync(readOnly);
    }
    const frozen = failureOf(() => {
      native.mapSet(map('.rodata.nmi'), new Uint8Array(4), new Uint8Array(96));
    });
    assert.deepEqual(
      { ...frozen, cause: 0 },
      { code: 'NOT_PERMITTED', step: 'write map', cause: 0 },
    );
    const counters = new Uint8Array(80);
    const beyond = Uint8Array.of(1, 0, 0, 0);
    assert.equal(
      failureOf(() => {
        native.mapSet(map('counters'), beyond, counters);
      }).step,
      'write map',
    );
    assert.equal(failureOf(() => native.mapDelete(map('counters'), beyond)).step, 'write map');
    assert.equal(native.mapGet(map('counters'), beyond), undefined);
  });
});
