import { useState } from 'react';

export default function App() {
  const [count, setCount] = useState(0);

  return (
    <main>
      <h1>Covibes Vite React example</h1>
      <p>Edit src/App.jsx and save: the page changes without a reload.</p>
      <button type="button" onClick={() => setCount((n) => n + 1)}>
        Count: {count}
      </button>
    </main>
  );
}
