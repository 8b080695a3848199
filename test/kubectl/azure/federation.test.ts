import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { findFederation, planFederation } from '../../../src/kubectl/azure/federation.ts';
import { createFakeAz, ordersId, subscription, type FakeAz } from '../support/fake-az.ts';
import { clientA } from '../support/recorded-kubectl.ts';
import { createIo } from '../support/silent-io.ts';

const federation = {
  resourceId: ordersId,
  clientId: clientA,
  issuer: 'https://issuer/',
  audience: 'api://AzureADTokenExchange',
};
const subject = { namespace: 'shop', serviceAccount: 'web.v1' };
const ofSubject = 'system:serviceaccount:shop:web.v1';

const ioOf = (az: FakeAz) => createIo((_program, args) => Promise.resolve(az.run(args)));

describe('a federated credential', () => {
  it('is that of a user-assigned identity', () => {
    const { az } = planFederation(federation, [subject]);
    assert.equal(
      az.map((line) => line.join(' ')).join('\n'),
      `identity federated-credential create --name shop-web__v1 --subscription ${subscription} --resource-group shop --identity-name orders --issuer https://issuer/ --subject ${ofSubject} --audiences api://AzureADTokenExchange`,
    );
  });

  it('is that of either kind while the resource id is not known', () => {
    const { az, notes } = planFederation({ ...federation, resourceId: '' }, [subject]);
    assert.deepEqual(az, [], 'one of the two would fail');
    const text = notes.join('\n');
    assert.match(text, /A managed identity \(az identity list --query .*431054d5/);
    assert.match(
      text,
      /az identity federated-credential create --name shop-web__v1 --resource-group RESOURCE_GROUP --identity-name IDENTITY --issuer/,
    );
    assert.match(
      text,
      new RegExp(
        `An application:\\n  az ad app federated-credential create --id ${clientA} --parameters '\\{"name":"shop-web__v1",.*"subject":"${ofSubject}"`,
      ),
    );
  });

  it('is refused for ids that az would read as something else', () => {
    for (const resourceId of ['[system]', '@/etc/passwd', '/subscriptions/s/x']) {
      assert.throws(() => planFederation({ ...federation, resourceId }, [subject]), {
        message: /spec\.resourceID .* is no id of a user-assigned identity/,
      });
    }
    for (const clientId of ['', '@/etc/passwd', 'mine']) {
      assert.throws(() => planFederation({ ...federation, resourceId: '', clientId }, [subject]), {
        message: /client id of the AzureIdentity is missing or is no GUID/,
      });
    }
  });

  it('is that of the kind that Azure has, if it may look', async () => {
    const unknown = { ...federation, resourceId: '' };
    const managed = createFakeAz({ identities: { [ordersId]: clientA.toUpperCase() } });
    const found = await findFederation(ioOf(managed), unknown, [subject]);
    assert.match(
      found.az[0]?.join(' ') ?? '',
      /^identity federated-credential create --name shop-web__v1 .*--identity-name orders/,
    );
    const none = createFakeAz({ identities: {} });
    const application = await findFederation(ioOf(none), unknown, [subject]);
    assert.match(
      application.az[0]?.join(' ') ?? '',
      new RegExp(`^ad app federated-credential create --id ${clientA}`),
    );
  });

  it('is not created twice, and does not replace that of another cluster', async () => {
    const own = {
      name: 'mine',
      issuer: 'https://issuer/',
      subject: ofSubject,
      audiences: [federation.audience],
    };
    const az = createFakeAz({ identities: { [ordersId]: clientA }, credentials: [own] });
    const done = await findFederation(ioOf(az), federation, [subject]);
    assert.deepEqual([done.az, done.notes], [[], ['1 of 1 credentials exist already.']]);
    const ofOther = { ...own, name: 'shop-web__v1', issuer: 'https://other-cluster/' };
    const shared = createFakeAz({ identities: { [ordersId]: clientA }, credentials: [ofOther] });
    const [line = []] = (await findFederation(ioOf(shared), federation, [subject])).az;
    assert.match(line.join(' '), /--name shop-web__v1___[0-9a-f]{32} /);
  });

  it('is one of at most twenty, with those that exist', async () => {
    const credentials = Array.from({ length: 20 }, (_, at) => ({
      name: `c${at}`,
      issuer: 'https://issuer/',
      subject: `s${at}`,
      audiences: [federation.audience],
    }));
    const az = createFakeAz({ identities: { [ordersId]: clientA }, credentials });
    await assert.rejects(findFederation(ioOf(az), federation, [subject]), {
      message: 'the identity would have 21 federated credentials, and Azure allows 20',
    });
  });

  const nameOf = (namespace: string, serviceAccount: string) =>
    planFederation(federation, [{ namespace, serviceAccount }]).az[0]?.[4] ?? '';

  it('has a name of its own for each service account', () => {
    const labels = ['a', 'b', 'a-b', 'b-c', 'a--b', 'a-b-c', 'x'.repeat(63)];
    const accounts = [
      ...labels,
      ...labels.flatMap((one) => labels.map((other) => `${one}.${other}`)),
      `${'y'.repeat(110)}.a`,
      `${'y'.repeat(110)}-a`,
      'y'.repeat(253),
      `${'y'.repeat(252)}z`,
    ];
    const names = labels.flatMap((namespace) =>
      accounts.map((account) => nameOf(namespace, account)),
    );
    assert.deepEqual(new Set(names).size, names.length);
    for (const name of names) assert.match(name, /^[A-Za-z0-9][\w-]{2,119}$/);
  });

  it('keeps its name from one release to the next', () => {
    assert.equal(nameOf('shop', 'web-v1'), 'shop-web-v1');
    assert.equal(nameOf('shop-eu', 'web'), 'shop-eu_web');
    assert.equal(
      nameOf('shop', 'w'.repeat(200)),
      `shop-${'w'.repeat(80)}___4ce35705abff4d76056ac4089fe78ab3`,
    );
  });
});
