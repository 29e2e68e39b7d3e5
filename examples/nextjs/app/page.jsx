import Counter from './counter.jsx';

export default function Page() {
  return (
    <main>
      <h1>Covibes Next.js example</h1>
      <p>Edit app/page.jsx and save: the page changes without a reload.</p>
      <Counter />
    </main>
  );
}
