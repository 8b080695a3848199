import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { renderBootGuard, withBootGuard } from '../../../src/redirect/host/boot-guard.ts';
import { noRedirect } from '../../../src/redirect/none.ts';
import { RedirectError, type Redirect } from '../../../src/redirect/redirect.ts';

const metadataIp = '169.254.169.254';
const unit = 'nmi-guard.service';

const active: Redirect = {
  ...noRedirect(),
  install: () => Promise.resolve({ state: 'active', detail: 'd', problems: [], changed: ['x'] }),
  verify: () => Promise.resolve({ state: 'active', detail: 'd', problems: [] }),
};

describe('the guard at boot', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-boot-guard-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('is shipped as the agent writes it', () => {
    const shipped = join(import.meta.dirname, '../../../deploy/boot-guard', unit);
    assert.equal(readFileSync(shipped, 'utf8'), renderBootGuard(metadataIp));
  });

  it('adds the bypass before the barrier, before the kubelet starts', () => {
    const text = renderBootGuard('10.0.0.1');
    assert.match(text, /^Before=kubelet\.service$/m);
    const rules = [...text.matchAll(/^ExecStart=-\/usr\/bin\/env ip (.*)$/gm)].map(
      ([, rule]) => rule,
    );
    assert.deepEqual(rules, [
      'rule add pref 81 to 10.0.0.1 nop',
      'rule add pref 79 iif lo to 10.0.0.1 goto 81',
      'rule add pref 80 to 10.0.0.1 prohibit',
    ]);
  });

  it('is written once, and wanted by the kubelet', async () => {
    const redirect = withBootGuard(active, folder, metadataIp);
    assert.match((await redirect.verify()).problems.join(), /nmi-guard\.service is not in/);
    assert.deepEqual((await redirect.install()).changed, ['x', `${unit} written`]);
    assert.equal(readFileSync(join(folder, unit), 'utf8'), renderBootGuard(metadataIp));
    assert.equal(readlinkSync(join(folder, 'kubelet.service.wants', unit)), `../${unit}`);
    assert.deepEqual(await redirect.verify(), { state: 'active', detail: 'd', problems: [] });
    assert.deepEqual((await redirect.install()).changed, ['x']);
  });

  it('is written again where it was changed', async () => {
    const redirect = withBootGuard(active, folder, metadataIp);
    await redirect.install();
    writeFileSync(join(folder, unit), 'something else');
    assert.equal((await redirect.verify()).state, 'broken');
    assert.deepEqual((await redirect.install()).changed, ['x', `${unit} written`]);
    rmSync(join(folder, 'kubelet.service.wants', unit));
    assert.equal((await redirect.verify()).state, 'broken');
    await redirect.install();
    assert.equal((await redirect.verify()).state, 'active');
  });

  it('is a problem if it cannot be written, and the redirect stays', async () => {
    const redirect = withBootGuard(active, join(folder, 'missing'), metadataIp);
    const { state, problems } = await redirect.install();
    assert.equal(state, 'broken');
    assert.match(problems.join(), /nmi-guard\.service could not be written: ENOENT/);
  });

  it('is removed with the redirect, and leaves the files of others', async () => {
    let removed = 0;
    const remove = (): Promise<void> => {
      removed++;
      return Promise.resolve();
    };
    const redirect = withBootGuard({ ...active, remove }, folder, metadataIp);
    await redirect.remove();
    await redirect.install();
    writeFileSync(join(folder, 'other.service'), '');
    await redirect.remove();
    assert.equal(removed, 2);
    assert.deepEqual(readdirSync(folder).toSorted(), ['kubelet.service.wants', 'other.service']);
    assert.deepEqual(readdirSync(join(folder, 'kubelet.service.wants')), []);
    mkdirSync(join(folder, unit));
    await assert.rejects(redirect.remove(), RedirectError);
  });
});
