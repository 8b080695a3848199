import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { settingsOf } from '../../../../src/redirect/ebpf/settings.ts';
import { readPrograms } from '../../../../src/redirect/native/native-files.ts';
import {
  asRedirectError,
  isMissing,
  kernelAccountOf,
  nativeModule,
  type BpfMap,
  type NativeModule,
  type Pins,
} from '../../../../src/redirect/native/addon.ts';
import { RedirectError } from '../../../../src/redirect/redirect.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { openBpfFolder, whyNoBpfTests, whyNoNode, type BpfFolder } from '../cgroup-fixture.ts';
import { EbpfTestBed } from '../ebpf-test-bed.ts';
import { compileRefusedPrograms } from '../refused-programs.ts';
import { openNamespace, sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

/** `enum bpf_attach_type` */
const connect4 = 10;

describe('the native module', { skip }, () => {
  let native: NativeModule;
  let bpf: BpfFolder;
  let work = '';
  let callers: BpfMap;

  before(() => {
    native = nativeModule();
    bpf = openBpfFolder();
    work = mkdtempSync(join(tmpdir(), 'nmi-test-native-'));
    load({ callers: join(bpf.path, 'callers') }, readPrograms(), { nmi_connect4: program() });
    callers = native.openPin(join(bpf.path, 'callers'), false);
  });
  after(() => {
    closeSync(callers);
    bpf.close();
    rmSync(work, { recursive: true, force: true });
  });

  const program = () => join(bpf.path, 'program');
  function load(maps: Pins, object = readPrograms(), programs: Pins = {}): void {
    native.load(object, settingsOf(object, defaultTarget, 2579), maps, programs);
  }

  /** The error of a call that must fail, in the form that callers of the module get. */
  function failureOf(call: () => unknown): RedirectError {
    try {
      call();
    } catch (error) {
      const known = asRedirectError(error);
      assert.ok(known instanceof RedirectError, String(error));
      return known;
    }
    return assert.fail('the call succeeded');
  }

  it('reports no generation of rules to a process that may not read them', () => {
    const source = join(import.meta.dirname, '../../../../src/redirect/native/addon.ts');
    const script = `import('${source}').then(({ inKernel }) => {
      inKernel((native) => native.ruleGeneration());
    }).catch(({ code, step }) => console.log(code, step))`;
    const words = ['--bounding-set=-all', '--inh-caps=-all', '--no-new-privs', process.execPath];
    const asRoot = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    assert.equal(asRoot, '');
    const found = execFileSync('setpriv', [...words, '-e', script], { encoding: 'utf8' });
    assert.equal(found, 'NOT_PERMITTED read generation\n');
  });

  it('refuses invalid arguments, and continues to work', () => {
    const nothing: unknown = {};
    const path = join(bpf.path, 'callers');
    const calls: readonly (() => unknown)[] = [
      () => native.mapSet(callers, new Uint16Array(4) as unknown as Uint8Array, new Uint8Array(40)),
      () => native.openPin('', true),
      () => native.openPin(`${path}\0`, true),
      () => native.openPin('/'.repeat(5000), true),
      () => native.openPin(path, 1 as unknown as boolean),
      () => native.attach('/', -1, '/', '/'),
      () => native.load(nothing as Uint8Array, new Uint8Array(96), {}, {}),
      () =>
        native.load(
          readPrograms(),
          new Uint8Array(96),
          Object.fromEntries(
            Array.from({ length: 17 }, (_, at): [string, string] => [`m${at}`, '/x']),
          ),
          {},
        ),
      () => native.isListening('1.2.3', 1),
      // Longer than any address, or beginning with a valid address.
      ...['169.254.169.254/32', '255.255.255.2555', '10.0.0.1\0x'].map(
        (ip) => () => native.placeOf(ip),
      ),
      () => native.cutFlows({ dialled: { ip: '1.2.3.4', port: 1 }, sparedSources: ['x'] }),
      () => native.isLocal('localhost'),
      () => (native.netnsCookie as (extra: number) => unknown)(1),
    ];
    for (const call of calls) assert.throws(call, TypeError, call.toString());
  });

  it('refuses a descriptor that is not a map, and entries of other sizes', () => {
    const map = native.openPin(join(bpf.path, 'callers'), true);
    closeSync(map);
    assert.equal(failureOf(() => native.mapKeys(map)).step, 'read map');
    assert.equal(failureOf(() => native.mapKeys(0)).step, 'read map');
    assert.equal(failureOf(() => native.callerOf(map)).step, 'ask socket');
    for (const call of [
      () => native.mapGet(callers, new Uint8Array(7)),
      () => native.mapDelete(callers, new Uint8Array(9)),
      () => native.mapSet(callers, new Uint8Array(8), new Uint8Array(23)),
    ]) {
      assert.equal(failureOf(call).step, 'map entry');
    }
  });

  it('reports the step and the errno when the kernel refuses', () => {
    const missing = failureOf(() => native.openPin(join(bpf.path, 'none'), true));
    assert.ok(isMissing(missing.cause));
    assert.equal(missing.step, 'open pin');
    const attach = failureOf(() => native.attach(program(), connect4, '/none', '/none'));
    assert.equal(attach.step, 'open cgroup');
    assert.equal(attach.code, 'KERNEL_REFUSED');
    const notCgroup = failureOf(() =>
      native.attach(program(), connect4, tmpdir(), join(bpf.path, 'link')),
    );
    assert.equal(notCgroup.step, 'attach');
    const unknown = failureOf(() => load({}, readPrograms(), { none: join(bpf.path, 'p') }));
    assert.equal(unknown.step, 'find program');
    const elsewhere = failureOf(() => load({}, readPrograms(), { nmi_connect4: `${work}/p` }));
    assert.equal(elsewhere.step, 'pin program');
    const occupied = failureOf(() => load({}, readPrograms(), { nmi_connect4: program() }));
    assert.equal(occupied.code, 'BUSY');
  });

  it('reports an invalid object, or settings of another size', () => {
    const noElf = failureOf(() => load({}, new Uint8Array(100)));
    assert.equal(noElf.step, 'read object');
    assert.match(noElf.message, /not a proper ELF/);
    const cut = failureOf(() => load({}, readPrograms().slice(0, 3000)));
    assert.equal(cut.step, 'read object');
    const settings = failureOf(() => native.load(readPrograms(), new Uint8Array(87), {}, {}));
    assert.equal(settings.step, 'settings');
    const noMap = failureOf(() => load({ none: join(bpf.path, 'x') }));
    assert.equal(noMap.step, 'map pin');
  });

  it('survives any damage to the object', () => {
    const whole = readPrograms();
    let seed = 1;
    const random = (below: number) => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    let refused = 0;
    for (let round = 0; round < 300; round += 1) {
      const damaged = whole.slice();
      for (let hit = 0; hit < 8; hit += 1) damaged[random(damaged.length)] = random(256);
      try {
        load({}, damaged);
      } catch (error) {
        assert.ok(asRedirectError(error) instanceof RedirectError, String(error));
        refused += 1;
      }
    }
    assert.ok(refused > 0);
  });

  it('reports in a few words why the verifier refused a program', () => {
    const refused = failureOf(() => load({}, compileRefusedPrograms(work)));
    assert.equal(refused.code, 'UNSUPPORTED');
    assert.match(refused.message, /^load: Permission denied \(.*invalid mem access/);
    assert.ok(refused.message.length < 700, `${refused.message.length} characters`);
    // And the whole log, beginning and statistics included.
    const account = kernelAccountOf(refused) ?? '';
    assert.match(account, /^0: R1=ctx\(\).*invalid mem access.*processed \d+ insns/ms);
    assert.equal(
      kernelAccountOf(failureOf(() => native.openPin(join(work, 'x'), true))),
      undefined,
    );
  });

  it('reads its own netns cookie, which no other has', { skip: skip || whyNoNode() }, async () => {
    await using other = await openNamespace();
    const script = other.start(
      `import('${join(import.meta.dirname, '../../../../src/redirect/native/addon.ts')}')` +
        `.then(({ nativeModule }) => console.log(String(nativeModule().netnsCookie())));`,
    );
    assert.notEqual(await script.line(), String(native.netnsCookie()));
    assert.equal(native.netnsCookie(), native.netnsCookie());
  });
});

describe('cutting tracked connections by netlink', { skip }, () => {
  let testBed: EbpfTestBed;
  before(async () => {
    testBed = await EbpfTestBed.open();
    await testBed.startCloud();
    // As on every node of a cluster: a rule makes the kernel track connections.
    await testBed.node.run('iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT');
    await testBed.node.run('iptables-nft -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT');
  });
  after(() => testBed.close());

  async function cut(answeredBy: string | undefined, spared: readonly string[]): Promise<string> {
    const source = join(import.meta.dirname, '../../../../src/redirect/native/addon.ts');
    const dialled = { ip: defaultTarget.metadataIp, port: 80 };
    const script = testBed.node.start(`
      process.stdin.resume();
      import('${source}').then(({ nativeModule }) => console.log(nativeModule().cutFlows(
        ${JSON.stringify({ dialled, answeredBy, sparedSources: spared })})));
    `);
    const line = await script.line();
    await script.stop();
    return line;
  }

  it('cuts those of pods, and keeps given sources, other responders and other ports', async () => {
    const { metadataIp } = defaultTarget;
    const pods = [testBed.client(testBed.podA, 'poda/c1'), testBed.client(testBed.podB, 'podb/c1')];
    for (const pod of pods) assert.match(await pod.send(`keep ${metadataIp} 80`), /^cloud/);
    const elsewhere = testBed.client(testBed.podA, 'poda/c2');
    assert.match(await elsewhere.send(`keep ${metadataIp} 8080`), /^cloud/);
    const host = testBed.client(testBed.node, '/system/kubelet');
    assert.match(await host.send(`keep ${metadataIp} 80`), /^cloud/);

    assert.equal(await cut(metadataIp, ['10.0.0.4']), '0');
    assert.equal(await cut('169.254.25.79', ['10.0.0.4', '10.244.0.6']), '1');
    assert.equal(await cut('169.254.25.79', ['10.0.0.4']), '1');
    assert.equal(await cut('169.254.25.79', ['10.0.0.4']), '0');
    assert.equal(await cut(metadataIp, []), '0');
    assert.equal(await cut(undefined, []), '1');
    assert.match(await elsewhere.send('ask'), /^cloud/);
  });
});
